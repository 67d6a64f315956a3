"""Random prompts for the guided nodes, each from its seed, and what may come of them.

Widgets at both ends and beyond, odd sizes, one to three frames, broken latents and conditioning, each way to guide.
What may come: a video without NaN, a refusal of ComfyUI's that names the input, or an error that
docs/troubleshooting.md explains. What the stock sampler cannot do either is not ours.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.comfy_server import ComfyError, ComfyExecutionError, ComfyInterrupted, ComfyServer
from tests.comfyui.test_help import quoted_errors, quotes

FAMILIES = {
    "frames": ("EmptyLatentImage", "batch_size", (1, 2, 3, 3)),
    "demo": ("EmptyLatentImage", "batch_size", (1, 2, 3, 17)),
    "lavie": ("EmptyLatentImage", "batch_size", (2, 3)),
    "wan": ("EmptyHunyuanLatentVideo", "length", (1, 2, 3, 5, 9)),
    "ltx": ("EmptyLTXVLatentVideo", "length", (1, 3, 9, 17)),
}
# Beyond these a run takes minutes; what is dear at both ends is bounded, and one run in ten is not.
DEAR = {"iterations": 3, "pairs": 4, "steps": 4, "token_count": 3, "batch_size": 3, "width": 128, "height": 128}
BEYOND = 0.04  # share of the widgets that are set to what they cannot be
PATIENCE = 15  # seconds until Cancel is pressed, and once more until it is called a hang


@dataclass
class Case:
    """One prompt and how it is queued.

    Attributes:
        graph: in API format. cancel: seconds after which Cancel is pressed, or None. twice: queued twice at once.
    """

    graph: dict[str, Any]
    cancel: float | None = None
    twice: bool = False


@dataclass
class Tally:
    """What came of the prompts. wrong: seed and what was wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Fuzz:
    """Random prompts over the nodes of a live server.

    Args:
        server: with the tests' packs. seed: of everything.
    """

    def __init__(self, server: ComfyServer, seed: int = 0):
        self.server, self.seed = server, seed
        self.schemas = server.object_info()
        self.remedies = quoted_errors()
        self.tally = Tally()

    # -- prompts ---------------------------------------------------------------------------------------------------

    def case(self, number: int) -> Case:
        """The prompt of this number, the same each time."""
        rng = random.Random(self.seed * 1_000_003 + number)
        family = rng.choice(list(FAMILIES))
        node, frames, lengths = FAMILIES[family]
        size = [rng.choice((16, 32, 64, 64, 96, 128, 72)) for _ in range(2)]
        graph: dict[str, Any] = {
            "models": ("TinyFamilyModel", {"family": family}),
            "flow": ("GradientFlow", {}),
            "judge": ("TinyDiscriminator", {}),
            "negative": ("CLIPTextEncode", {"clip": ["models", 1], "text": rng.choice(("", "blurry"))}),
            "empty": (node, {"width": size[0], "height": size[1], frames: rng.choice(lengths), "batch_size": 1}),
            "latent": ("SpoilLatent", {"latent": ["empty", 0], **self._spoiling(rng, "how", "mask")}),
            "positive": self._positive(rng),
            "finite": ("ShowFinite", {"latent": ["sampler", 0]}),
            "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["models", 2]}),
            "preview": ("PreviewImage", {"images": ["decode", 0]}),
        }
        graph["empty"][1][frames] = rng.choice(lengths)
        for side in ("positive", "negative"):
            spoiling = self._spoiling(rng, "how", "pooled", rare=0.06)
            graph[f"{side} as it comes"] = ("SpoilConditioning", {"conditioning": [side, 0], **spoiling})
        graph |= self._sampler(rng)
        if rng.random() < 0.2:
            graph["frames steadied"] = ("MotionPromptSteady", {"images": ["decode", 0], "flow_model": ["flow", 0]})
            graph["frames steadied"][1].update(self._widgets(rng, "MotionPromptSteady", 0.3))
            graph["preview"][1]["images"] = ["frames steadied", 0]
        made = {name: {"class_type": kind, "inputs": inputs, "_meta": {}} for name, (kind, inputs) in graph.items()}
        cancel = rng.random() * 3 if rng.random() < 0.15 else None
        return Case(made, cancel, rng.random() < 0.12)

    def _positive(self, rng: random.Random) -> tuple[str, dict[str, Any]]:
        text = rng.choice(("a red ball rolling", "", "a (red:1.2) ball " * 30))
        if rng.random() < 0.1:
            return "CLIPTextEncode", {"clip": ["models", 1], "text": text}
        learnable = {"token_count": rng.choice((1, 2, 3)), "init_words": "authentic", "placement": "end"}
        learnable |= self._widgets(rng, "MotionPromptConditioning", 0.15)
        return "MotionPromptConditioning", {"clip": ["models", 1], **learnable, "text": text}

    def _sampler(self, rng: random.Random) -> dict[str, Any]:
        """A sampler node, guided by itself or through Apply MotionPrompt."""
        basic = {"seed": rng.randrange(2**32), "steps": rng.choice((1, 2, 3, 4)), "cfg": rng.choice((0.0, 1.0, 5.0))}
        basic |= {"sampler_name": "euler", "scheduler": "normal", "denoise": rng.choice((1.0, 1.0, 0.5))}
        basic |= self._widgets(rng, "KSampler", 0.15)
        ends = {"positive": ["positive as it comes", 0], "negative": ["negative as it comes", 0]}
        basic |= {**ends, "latent_image": ["latent", 0]}
        guidance = {"preset": rng.choice(("paper", "demo")), "start": 0.0, "stop": rng.choice((0.3, 0.6, 1.0))}
        guidance |= {"guide": rng.choice(("tokens", "tokens", "estimate", "both"))}
        guidance |= self._widgets(rng, "MotionPromptApply", 0.15)
        guidance |= {"vae": ["models", 2], "flow_model": ["flow", 0], "settings": ["settings", 0]}
        guidance |= {"discriminator": ["judge", 0]} if rng.random() < 0.6 else {}
        rest = {"iterations": rng.choice((1, 2)), **self._widgets(rng, "MotionPromptSettings", 0.08)}
        settings = {"settings": ("MotionPromptSettings", rest)}
        report = {"report": ("MotionPromptReport", {"report": ["sampler", 1], "latent": ["sampler", 0]})}
        if rng.random() < 0.5:
            inputs = {"model": ["models", 0], **basic, **guidance}
            return {**settings, **report, "sampler": ("MotionPromptKSampler", inputs)}
        report["report"][1]["report"] = ["apply", 1]
        apply = {"apply": ("MotionPromptApply", {"model": ["models", 0], **guidance})}
        return {**settings, **report, **apply, "sampler": ("KSampler", {"model": ["apply", 0], **basic})}

    def _spoiling(self, rng: random.Random, *names: str, rare: float = 0.3) -> dict[str, str]:
        node = "SpoilLatent" if "mask" in names else "SpoilConditioning"
        choices = {name: self._spec(node, name)[0] for name in names}
        return {name: rng.choice(found) if rng.random() < rare else found[0] for name, found in choices.items()}

    def _spec(self, node: str, name: str) -> list[Any]:
        inputs = self.schemas[node]["input"]
        return {**inputs.get("required", {}), **inputs.get("optional", {})}[name]

    def _widgets(self, rng: random.Random, node: str, share: float) -> dict[str, Any]:
        """A share of a node's widgets, each at an end, between, or beyond."""
        found = {}
        for group in ("required", "optional"):
            for name, spec in self.schemas[node]["input"].get(group, {}).items():
                if rng.random() < share and (value := self._value(rng, name, spec)) is not None:
                    found[name] = value
        return found

    @staticmethod
    def _value(rng: random.Random, name: str, spec: list[Any]) -> Any:
        kind, options = spec[0], spec[1] if len(spec) > 1 else {}
        choices = kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None
        if choices:
            return "no such choice" if rng.random() < BEYOND else rng.choice(choices)
        if kind not in ("INT", "FLOAT"):
            return rng.choice(("", "a", "\u00e4 \u4e2d (:", "x " * 200)) if kind == "STRING" else None
        low, high = options.get("min", 0), options.get("max", 1)
        if name in DEAR and rng.random() < 0.9:
            high = min(high, DEAR[name])
        beyond = [low - 1, high + 1, *([math.nan, 1e308] if kind == "FLOAT" else [])]
        within = [low, high, options.get("default", low), low + (high - low) * rng.random()]
        value = rng.choice(beyond if rng.random() < BEYOND else within)
        return int(value) if kind == "INT" else float(value)

    # -- what comes of them ----------------------------------------------------------------------------------------

    def run(self, number: int) -> None:
        """Queue a prompt and note what came of it."""
        case = self.case(number)
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
        report = "\n".join(str(part) for part in result.outputs.get("report", {}).get("text", []))
        told = "NaN or infinity" in report or "state: off" in report  # switched off, it is the stock sampler
        if told and not self._stock(case).get("finite", True):
            return "NaN as the stock sampler, and told"
        return f"wrong: the video is not finite: {report}"

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
        sampler = graph["sampler"]["inputs"]
        names = self.schemas["KSampler"]["input"]["required"]
        graph["sampler"] = {"class_type": "KSampler", "inputs": {name: sampler[name] for name in names}, "_meta": {}}
        graph["sampler"]["inputs"]["model"] = ["models", 0]
        positive = graph["positive"]["inputs"]
        graph["positive"] = {
            "class_type": "CLIPTextEncode",
            "inputs": {"clip": positive["clip"], "text": positive["text"]},
            "_meta": {},
        }
        wanted = ("models", "negative", "empty", "latent", "positive", "finite", "sampler")
        kept = {name: node for name, node in graph.items() if name in wanted or name.endswith("as it comes")}
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
