"""Queue a workflow on a running ComfyUI and save what it makes, without a browser: for scripts and agents.

    python docs/queue_by_api.py
    python docs/queue_by_api.py --set MotionPromptKSampler.strength=0.5 --set MotionPromptKSampler.seed=3 --to results

Needs nothing but Python. The default workflow is workflows/api/quickstart.json, which makes the quickstart's videos
with the demo model and nothing to download; any file of the interface's *Export (API)* will do. ComfyUI's routes that
it uses: POST /prompt, GET /history/<prompt id>, GET /view.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

QUICKSTART = Path(__file__).resolve().parent.parent / "workflows" / "api" / "quickstart.json"
Prompt = dict[str, dict[str, Any]]


class QueueError(RuntimeError):
    """ComfyUI is not there, refused the workflow, or a node failed; the message says which."""


def change(prompt: Prompt, change: str) -> None:
    """Set an input in place: "<class or node id>.<input>=<JSON or text>". Of a class, on all of its nodes."""
    target, equals, text = change.partition("=")
    node, _, name = target.partition(".")
    found = [item for number, item in prompt.items() if node in (number, item["class_type"]) and name in item["inputs"]]
    if not equals or not found:
        values = [(item["class_type"], *pair) for item in prompt.values() for pair in item["inputs"].items()]
        known = sorted({f"{kind}.{name}" for kind, name, value in values if not isinstance(value, list)})
        raise QueueError(f"--set {change}: no such input. There are: {', '.join(known)}")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    for item in found:
        item["inputs"][name] = value


def queue(server: str, prompt: Prompt) -> str:
    """Hand a prompt to ComfyUI; returns its id.

    Raises:
        QueueError: it was refused: a wrong value, a missing file, a node that this ComfyUI does not have.
    """
    try:
        queued = json.loads(_post(f"{server}/prompt", {"prompt": prompt}))
    except urllib.error.HTTPError as refused:
        raise QueueError(_why(json.load(refused))) from None
    except OSError as error:
        raise QueueError(f"No ComfyUI answers at {server} ({error}). Start it, or name it with --server.") from None
    if queued.get("node_errors"):  # it would run without these nodes and what hangs on them, and call that a success
        _post(f"{server}/queue", {"delete": [queued["prompt_id"]]})
        raise QueueError(_why(queued))
    return queued["prompt_id"]


def _post(url: str, content: dict[str, Any]) -> bytes:
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return response.read()


def _why(refusal: dict[str, Any]) -> str:
    lines = [refusal["error"]["message"]] if "error" in refusal else []
    for number, node in (refusal.get("node_errors") or {}).items():
        details = dict.fromkeys(f"{error['message']}: {error['details']}" for error in node["errors"])
        lines += [f"node {number} ({node['class_type']}): {detail}" for detail in details]
    return "\n".join(lines)


def wait(server: str, prompt_id: str, every: float = 1.0) -> dict[str, Any]:
    """What the nodes showed, by node id, as soon as the prompt is done.

    Raises:
        QueueError: a node failed (its own words), or somebody stopped the run.
    """
    while True:
        with urllib.request.urlopen(f"{server}/history/{prompt_id}") as response:
            entry = json.load(response).get(prompt_id)
        if entry:
            break
        time.sleep(every)
    if entry["status"]["status_str"] == "success":
        return entry["outputs"]
    name, said = entry["status"]["messages"][-1]
    where = f"node {said.get('node_id')} ({said.get('node_type')})"
    raise QueueError(f"{where}: {said.get('exception_message', name)}".strip())


def save(server: str, outputs: dict[str, Any], folder: Path) -> list[Path]:
    """Fetch every file that a node saved (pictures, animations, videos) into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = [item for ui in outputs.values() for part in ui.values() if isinstance(part, list) for item in part]
    paths = []
    for item in shown:
        if isinstance(item, dict) and item.get("type") == "output":
            path = folder / Path(item["filename"]).name
            with urllib.request.urlopen(f"{server}/view?{urllib.parse.urlencode(item)}") as response:
                path.write_bytes(response.read())
            paths.append(path)
    return paths


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="address of a running ComfyUI")
    parser.add_argument("--workflow", type=Path, default=QUICKSTART, help="a file of Export (API)")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="change an input")
    parser.add_argument("--to", type=Path, default=Path("motionprompt_videos"), help="folder for what it makes")
    options = parser.parse_args(arguments)
    prompt = json.loads(options.workflow.read_text(encoding="utf-8"))
    try:
        for item in options.set:
            change(prompt, item)
        outputs = wait(options.server, queue(options.server, prompt))
        for path in save(options.server, outputs, options.to):
            print(path)
    except QueueError as error:
        print(error, file=sys.stderr)
        return 1
    for number, ui in outputs.items():
        if prompt[number]["class_type"].startswith("MotionPrompt"):  # what the guidance did, or what was measured
            print(*ui.get("text", []), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
