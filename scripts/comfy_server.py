"""Start a real ComfyUI with this pack in it and drive it through its HTTP API.

Used by the demo and by the tests, so both see what a user sees. Typical use::

    with ComfyServer(comfyui, packs=[repo_root]) as server:
        prompt = ui_to_api(workflow, server.object_info())      # scripts/workflow.py
        with server.watch(on_event=print_progress):              # optional: progress and previews
            result = server.queue(prompt)
        for path in result.files():                              # what SaveImage and friends wrote
            ...

The server gets a base directory of its own (models/, input/, output/, custom_nodes/), so nothing is written into the
ComfyUI folder and no other custom node gets in the way. Everything except `watch` needs only the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACK_NAME = "ComfyUI-MotionPrompt"
_NOT_COPIED = shutil.ignore_patterns(".git", ".venv*", "__pycache__", "output", "runs", ".pytest_cache", ".ruff_cache")


class ComfyError(RuntimeError):
    """ComfyUI did not start, died, or refused a prompt. The message says why."""


class ComfyExecutionError(ComfyError):
    """A node raised while a prompt ran.

    Attributes:
        node_id: the failing node's id in the prompt.
        node_type: its class, for example "MotionPromptKSampler".
        exception_type: class name of what was raised.
        exception_message: the text an artist reads in the error dialog.
        traceback: the server's traceback as one string.
    """

    def __init__(self, details: Mapping[str, Any]):
        self.node_id = str(details.get("node_id", "?"))
        self.node_type = str(details.get("node_type", "?"))
        self.exception_type = str(details.get("exception_type", "?"))
        self.exception_message = str(details.get("exception_message", "")).strip()
        self.traceback = "".join(details.get("traceback") or [])
        super().__init__(
            f"node {self.node_id} ({self.node_type}) raised {self.exception_type}: {self.exception_message}\n"
            f"{self.traceback}"
        )


class ComfyInterrupted(ComfyError):
    """The prompt was interrupted by the user (or by `ComfyServer.interrupt`)."""


@dataclass
class RunResult:
    """A finished prompt.

    Attributes:
        prompt_id: its id in ComfyUI's history.
        outputs: node id -> what the node showed in the interface, as in ComfyUI's history.
        seconds: wall-clock time from queueing to the end.
        messages: the history's status messages, as (name, data) pairs.
    """

    prompt_id: str
    outputs: dict[str, dict[str, Any]]
    seconds: float
    messages: list[tuple[str, dict[str, Any]]]
    folders: dict[str, Path] = field(default_factory=dict, repr=False)

    def files(self, node_id: str | int | None = None) -> list[Path]:
        """Files that output nodes wrote, in the order of the nodes; of one node if `node_id` is given."""
        nodes = self.outputs.values() if node_id is None else [self.outputs.get(str(node_id), {})]
        found = []
        for ui in nodes:
            for entries in ui.values():
                for item in entries if isinstance(entries, list) else []:
                    if isinstance(item, dict) and "filename" in item:
                        folder = self.folders[item.get("type", "output")]
                        found.append(folder / item.get("subfolder", "") / item["filename"])
        return found

    def text(self, node_id: str | int) -> str:
        """Text that a node showed (its ui "text"), joined by newlines."""
        return "\n".join(str(part) for part in self.outputs.get(str(node_id), {}).get("text", []))


@dataclass
class EventLog:
    """What came over the websocket while `ComfyServer.watch` was open.

    Attributes:
        events: (name, data) pairs such as ("progress", {"value": 3, "max": 20, ...}).
        previews: raw binary messages (live previews; 4-byte type, then the rest).
    """

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)

    def of(self, name: str) -> list[dict[str, Any]]:
        """Data of the events called `name`, oldest first."""
        return [data for event, data in list(self.events) if event == name]


def link_pack(source: Path, custom_nodes: Path, name: str | None = None) -> Path:
    """Put a node pack into a custom_nodes folder: a symlink, or a copy where links are not allowed (Windows)."""
    target = custom_nodes / (name or source.name)
    try:
        target.symlink_to(source.resolve(), target_is_directory=True)
    except OSError:
        shutil.copytree(source, target, ignore=_NOT_COPIED)
    return target


def comfyui_version(comfyui: Path) -> str:
    """Version of a ComfyUI folder, for example "0.3.75".

    Raises:
        ComfyError: the folder holds no ComfyUI.
    """
    for name in ("main.py", "comfyui_version.py"):
        if not (comfyui / name).is_file():
            raise ComfyError(f"{comfyui} is not a ComfyUI folder: it has no {name}")
    return (comfyui / "comfyui_version.py").read_text(encoding="utf-8").split('__version__ = "')[1].split('"')[0]


def find_animatediff(comfyui: Path) -> Path | None:
    """AnimateDiff-Evolved in this ComfyUI's custom_nodes folder, or None."""
    for path in sorted((comfyui / "custom_nodes").glob("*")):
        if "animatediff-evolved" in path.name.lower() and (path / "animatediff").is_dir():
            return path
    return None


class ComfyServer:
    """A ComfyUI process of our own, as a context manager.

    Args:
        comfyui: folder with ComfyUI's main.py.
        packs: node packs to load; this repository is linked under its registry-like name whatever its folder is called.
        base_dir: where models/, input/, output/ and custom_nodes/ live; if None a temporary folder, removed later.
        device_args: ComfyUI's device flags; ("--cpu",) makes runs the same everywhere, () lets ComfyUI choose.
        args: further flags for main.py, for example ("--preview-method", "latent2rgb").
        python: interpreter that has ComfyUI's requirements.
        env: environment variables set on top of this process's.
        port: a fixed port, or None for a free one.
        start_timeout: seconds to wait until the server answers.
    """

    def __init__(
        self,
        comfyui: Path | str,
        packs: Sequence[Path | str] = (),
        *,
        base_dir: Path | str | None = None,
        device_args: Sequence[str] = ("--cpu",),
        args: Sequence[str] = (),
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        start_timeout: float = 300.0,
    ):
        self.comfyui = Path(comfyui).resolve()
        self.version = comfyui_version(self.comfyui)
        self.packs = [Path(pack).resolve() for pack in packs]
        self.client_id = uuid.uuid4().hex
        self._given_base = Path(base_dir).resolve() if base_dir is not None else None
        self._flags = [*device_args, *args]
        self._python = python
        self._env = dict(env or {})
        self._port = port
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never proxy 127.0.0.1

    # -- life ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            ComfyError: it ended or did not answer in time; the message ends with its log.
        """
        self.base_dir = self._given_base or Path(tempfile.mkdtemp(prefix="motionprompt-comfyui-"))
        for name in ("models", "input", "output", "temp", "user", "custom_nodes"):
            (self.base_dir / name).mkdir(parents=True, exist_ok=True)
        for pack in self.packs:
            name = PACK_NAME if (pack / "motionprompt_core").is_dir() else pack.name
            if not (self.base_dir / "custom_nodes" / name).exists():
                link_pack(pack, self.base_dir / "custom_nodes", name)
        self.log_path = self.base_dir / "comfyui.log"
        self.port = self._port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [
            self._python,
            "-u",
            str(self.comfyui / "main.py"),
            "--base-directory",
            str(self.base_dir),
            "--listen",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--disable-auto-launch",
            "--disable-api-nodes",
            "--database-url",
            "sqlite:///:memory:",
            *self._flags,
        ]
        env = {**os.environ, "PYTHONIOENCODING": "utf-8", **self._env}
        env.pop("PYTHONPATH", None)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.comfyui, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            self._check_alive()
            with contextlib.suppress(OSError):
                self.get("/system_stats", timeout=5)
                return
            time.sleep(0.2)
        raise ComfyError(f"ComfyUI did not answer within {self._start_timeout:.0f} s. Its log:\n{self.log_tail()}")

    def stop(self) -> None:
        """End the process; remove the base directory if it was a temporary one."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._given_base is None and getattr(self, "base_dir", None) is not None:
            self._last_log = self.log()
            shutil.rmtree(self.base_dir, ignore_errors=True)  # removes links, never what they point to

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running().pid

    def peak_memory(self) -> int:
        """Peak resident memory of the server in bytes (the present one where the system keeps no peak)."""
        status = Path(f"/proc/{self.pid}/status")
        if status.is_file():
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        import psutil  # comes with ComfyUI

        memory = psutil.Process(self.pid).memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))

    def log(self) -> str:
        """Everything the server printed so far."""
        if self.log_path.is_file():
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        return getattr(self, "_last_log", "")

    def log_tail(self, lines: int = 40) -> str:
        """The last lines that the server printed."""
        return "\n".join(self.log().splitlines()[-lines:])

    # -- HTTP ------------------------------------------------------------------------------------------------------

    def get(self, route: str, timeout: float = 60) -> Any:
        """GET a route and parse its JSON."""
        return json.loads(self.get_bytes(route, timeout))

    def get_bytes(self, route: str, timeout: float = 60) -> bytes:
        """GET a route's raw body, for example "/extensions/ComfyUI-MotionPrompt/docs/MotionPromptKSampler.md"."""
        with self._opener.open(self.url + route, timeout=timeout) as response:
            return response.read()

    def post(self, route: str, payload: Mapping[str, Any], timeout: float = 60) -> Any:
        """POST JSON; returns the parsed answer, or None when it has no body."""
        return self._post(route, json.dumps(payload).encode(), "application/json", timeout)

    def _post(self, route: str, body: bytes, content_type: str, timeout: float) -> Any:
        request = urllib.request.Request(self.url + route, data=body, headers={"Content-Type": content_type})
        with self._opener.open(request, timeout=timeout) as response:
            answer = response.read()
        return json.loads(answer) if answer.strip() else None

    def object_info(self, node: str | None = None) -> dict[str, Any]:
        """Schemas of all nodes (or of one) as the frontend gets them: {node id: {...}}."""
        return self.get("/object_info" + (f"/{urllib.parse.quote(node)}" if node else ""))

    def upload(self, path: Path | str, subfolder: str = "") -> str:
        """Upload an image into input/; returns the name to put into a LoadImage node."""
        path, boundary = Path(path), uuid.uuid4().hex
        parts = [("overwrite", "true"), ("subfolder", subfolder)]
        body = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in parts
        )
        head = f'Content-Disposition: form-data; name="image"; filename="{path.name}"\r\n'
        body += f"--{boundary}\r\n{head}Content-Type: application/octet-stream\r\n\r\n".encode()
        body += path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        answer = self._post("/upload/image", body, f"multipart/form-data; boundary={boundary}", 60)
        return f"{answer['subfolder']}/{answer['name']}" if answer.get("subfolder") else answer["name"]

    def free(self) -> None:
        """Ask ComfyUI to unload its models and drop its cache (done before the next prompt)."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def interrupt(self) -> None:
        """What the interface's cancel button does."""
        self.post("/interrupt", {})

    # -- prompts ---------------------------------------------------------------------------------------------------

    def queue(self, prompt: Mapping[str, Any], timeout: float = 600) -> RunResult:
        """Run an API-format prompt to its end.

        Args:
            prompt: {node id: {"class_type": ..., "inputs": {...}}}.
            timeout: seconds before the prompt is interrupted.

        Raises:
            ComfyError: refused by validation (the message lists what is wrong with which node), or the server died.
            ComfyExecutionError: a node raised.
            ComfyInterrupted: interrupted.
            TimeoutError: not finished in time.
        """
        return self.wait(self.submit(prompt), timeout)

    def submit(self, prompt: Mapping[str, Any]) -> str:
        """Queue a prompt without waiting; returns its id for `wait`. Raises ComfyError if ComfyUI refuses it."""
        try:
            return self.post("/prompt", {"prompt": prompt, "client_id": self.client_id})["prompt_id"]
        except urllib.error.HTTPError as error:
            raise ComfyError(_refusal(error.read())) from None

    def wait(self, prompt_id: str, timeout: float = 600) -> RunResult:
        """Wait for a queued prompt; see `queue`."""
        start = time.monotonic()
        while True:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return self._result(prompt_id, entry, time.monotonic() - start)
            if time.monotonic() - start > timeout:
                self.interrupt()
                raise TimeoutError(f"the prompt took more than {timeout:.0f} s. Log of ComfyUI:\n{self.log_tail()}")
            time.sleep(0.1)
            self._check_alive()

    def _result(self, prompt_id: str, entry: dict[str, Any], seconds: float) -> RunResult:
        messages = [(name, data) for name, data in entry.get("status", {}).get("messages", [])]
        for name, data in messages:
            if name == "execution_error":
                raise ComfyExecutionError(data)
            if name == "execution_interrupted":
                raise ComfyInterrupted(f"interrupted in node {data.get('node_id')} ({data.get('node_type')})")
        folders = {name: self.base_dir / name for name in ("output", "temp", "input")}
        return RunResult(prompt_id, entry.get("outputs", {}), seconds, messages, folders)

    @contextlib.contextmanager
    def watch(self, on_event: Callable[[str, dict[str, Any]], None] | None = None) -> Iterator[EventLog]:
        """Collect the websocket events (progress, executing, previews) of prompts queued inside the `with`.

        Args:
            on_event: called with (name, data) for each JSON event, from a background thread.
        """
        import asyncio

        import aiohttp  # comes with ComfyUI

        log, ready, loop = EventLog(), threading.Event(), asyncio.new_event_loop()

        async def listen() -> None:
            address = f"{self.url}/ws?clientId={self.client_id}"
            async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket_:
                ready.set()
                async for message in socket_:
                    if message.type == aiohttp.WSMsgType.BINARY:
                        log.previews.append(message.data)
                    elif message.type == aiohttp.WSMsgType.TEXT:
                        event = json.loads(message.data)
                        log.events.append((event["type"], event["data"]))
                        if on_event is not None:
                            on_event(event["type"], event["data"])

        task = loop.create_task(listen())

        def run() -> None:
            with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError):
                loop.run_until_complete(task)
            loop.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        if not ready.wait(30):
            raise ComfyError(f"no websocket connection to {self.url}")
        try:
            yield log
        finally:
            time.sleep(0.2)  # the last events of a prompt arrive just after its history entry
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
            thread.join(10)

    # -- inner -----------------------------------------------------------------------------------------------------

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ComfyError("the server is not running; use it as `with ComfyServer(...) as server:`")
        return self._process

    def _check_alive(self) -> None:
        code = self._running().poll()
        if code is not None:
            raise ComfyError(f"ComfyUI {self.version} ended with exit code {code}. Its log:\n{self.log_tail()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _refusal(body: bytes) -> str:
    """Readable text from ComfyUI's answer to an invalid prompt."""
    try:
        answer = json.loads(body)
    except ValueError:
        return f"ComfyUI refused the prompt: {body[:500]!r}"
    error = answer.get("error", {})
    lines = [f"ComfyUI refused the prompt: {error.get('message', error)} {error.get('details', '')}".rstrip()]
    for node_id, node in (answer.get("node_errors") or {}).items():
        for item in node.get("errors", []):
            lines.append(f"  node {node_id} ({node.get('class_type')}): {item.get('message')}: {item.get('details')}")
    return "\n".join(lines)
