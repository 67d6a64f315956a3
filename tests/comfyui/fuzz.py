"""What may come of random prompts (fuzz_prompts.py).

A video without NaN, a refusal of ComfyUI's that names the input, or an error that
docs/troubleshooting.md explains. What the stock sampler cannot do either is not ours.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.comfy_server import ComfyError, ComfyExecutionError, ComfyInterrupted, ComfyServer, EventLog
from tests.comfyui.fuzz_prompts import Case, Prompts
from tests.comfyui.test_help import quoted_errors, quotes

PATIENCE = 15  # seconds until Cancel is pressed, and once more until it is called a hang


@dataclass
class Tally:
    """What came of the prompts. wrong: seed and what was wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Fuzz:
    """Queues random prompts on a live server.

    Args:
        server: with the tests' packs. seed: of everything. events: what the server tells meanwhile.
    """

    def __init__(self, server: ComfyServer, seed: int = 0, events: EventLog | None = None):
        self.server, self.events = server, events or EventLog()
        self.prompts = Prompts(server.object_info(), seed)
        self.remedies = quoted_errors()
        self.tally = Tally()

    def run(self, number: int) -> None:
        """Queue a prompt and note what came of it."""
        case = self.prompts.case(number)
        self.events.events.clear()
        self.events.previews.clear()
        outcomes = self._outcomes(case)
        for outcome in outcomes:
            kind, _, why = outcome.partition(": ")
            self.tally.counts[kind] += 1
            if kind == "refused":
                self.tally.refusals[why] += 1
            if kind == "wrong":
                self.tally.wrong.append(f"{number}: {why}")

    def _outcomes(self, case: Case) -> list[str]:
        try:
            ids = [self.server.submit(case.graph) for _ in range(2 if case.twice else 1)]
        except ComfyError as error:
            return [self._refused_by_comfyui(str(error))]
        cancel = None if case.cancel is None else threading.Timer(case.cancel, self.server.interrupt)
        if cancel is not None:
            cancel.start()
        outcomes = [self._outcome(case, prompt_id) for prompt_id in ids]
        if cancel is not None:
            cancel.join()
            self._idle()
        return outcomes

    def _idle(self) -> None:
        """A Cancel that came too late is not to hit the next prompt."""
        with contextlib.suppress(ComfyInterrupted):
            self.server.queue({"idle": {"class_type": "ShowLeftovers", "inputs": {}}})

    def _outcome(self, case: Case, prompt_id: str) -> str:
        overdue = threading.Timer(PATIENCE, self.server.interrupt)
        overdue.start()
        started = time.monotonic()
        try:
            result = self.server.wait(prompt_id, timeout=4 * PATIENCE)
        except ComfyInterrupted:
            return "interrupted"
        except TimeoutError as error:
            return f"wrong: hangs: {error}"[:1500]
        except ComfyExecutionError as error:
            return self._failed(case, error)
        except ComfyError as error:
            return f"wrong: the server died: {error}"[:3000]
        finally:
            overdue.cancel()
        if time.monotonic() - started > 2 * PATIENCE:
            return "wrong: it was done, although Cancel had been pressed"
        shown = json.loads(result.text("finite"))
        if shown["finite"]:
            return "done"
        report = "\n".join([*map(str, result.outputs.get("report", {}).get("text", [])), *self._shown()])
        off = any(line in report for line in ("state: off", "off: the video"))  # then it is the stock sampler
        told = off or "NaN or infinity" in report
        if told and not self._stock(case).get("finite", True):
            return "NaN as the stock sampler, and told"
        return f"wrong: the video is not finite: {report}"

    def _shown(self) -> list[str]:
        """What the nodes show after this prompt."""
        time.sleep(0.3)  # the last of it comes just after the prompt has ended
        return [line for view in self.events.of("motionprompt.view") for line in view["lines"]]

    def _refused_by_comfyui(self, text: str) -> str:
        named = re.search(r"smaller than min|bigger than max|not in list|Failed to convert", text)
        named = named or any(quotes(quote, text) for quote in self.remedies)
        return "refused by ComfyUI" if named else f"wrong: refused without a reason: {text}"[:600]

    def _failed(self, case: Case, error: ComfyExecutionError) -> str:
        message = error.exception_message
        known = next((quote for quote in self.remedies if quotes(quote, message)), None)
        if known is not None:
            return f"refused: {known}"
        if error.node_type in ("VAEDecode", "PreviewImage", "CLIPTextEncode", "SpoilLatent", "SpoilConditioning"):
            return "another node fails"
        stock = self._stock(case)
        if "error" in stock:
            return f"the stock sampler fails too: {stock['error']}"[:90]
        return f"wrong: {error.node_type} raised {error.exception_type}: {message}\n{error.traceback[-1500:]}"

    def _stock(self, case: Case) -> dict[str, Any]:
        """The same with ComfyUI's own nodes: whether the video is finite, or its error."""
        graph = copy.deepcopy(case.graph)
        ours = [name for name in ("apply", "steady") if name in graph]
        for node in graph.values():  # round ours
            while (linked := node["inputs"].get("model")) and linked[0] in ours:
                node["inputs"]["model"] = graph[linked[0]]["inputs"]["model"]
        sampler = graph["sampler"]["inputs"]
        names = self.prompts.schemas["KSampler"]["input"]["required"]
        graph["sampler"] = {"class_type": "KSampler", "inputs": {name: sampler[name] for name in names}, "_meta": {}}
        positive = graph["positive"]["inputs"]
        graph["positive"] = {
            "class_type": "CLIPTextEncode",
            "inputs": {"clip": positive["clip"], "text": positive["text"]},
            "_meta": {},
        }
        unwanted = (*ours, "settings", "report", "decode", "preview", "frames steadied", "judge", "flow")
        kept = {name: node for name, node in graph.items() if name not in unwanted}
        try:
            return json.loads(self.server.queue(kept, timeout=4 * PATIENCE).text("finite"))
        except (ComfyError, TimeoutError) as error:
            return {"error": getattr(error, "exception_message", str(error))}


def log_faults(log: str) -> list[str]:
    """Lines of a server's log that no prompt's error accounts for."""
    words = ("Exception ignored", "Exception in thread", "Segmentation fault", "Task exception was never retrieved")
    return [line for line in log.splitlines() if any(word in line for word in words)]


def save(tally: Tally, path: Path) -> None:
    """Everything that came of the prompts, as JSON."""
    content = {"counts": tally.counts, "refusals": tally.refusals, "wrong": tally.wrong}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
