"""Random prompts for the guided nodes, each from its seed.

Widgets at both ends and beyond, odd sizes, one to three frames, broken latents and conditioning, each way to guide,
Steady Motion, AnimateDiff-Evolved's sampling where it is there, and other nodes that patch the model.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

FAMILIES = {
    "frames": ("EmptyLatentImage", "batch_size", (1, 2, 3, 3, 3)),
    "demo": ("EmptyLatentImage", "batch_size", (1, 2, 3, 17)),
    "lavie": ("EmptyLatentImage", "batch_size", (2, 3)),
    "wan": ("EmptyHunyuanLatentVideo", "length", (1, 3, 5, 9, 9)),
    "ltx": ("EmptyLTXVLatentVideo", "length", (1, 9, 17, 17)),
}
# Beyond these a run takes minutes; what is dear at both ends is bounded, and one run in ten is not.
DEAR = {"iterations": 3, "pairs": 4, "steps": 4, "token_count": 3, "batch_size": 3, "width": 128, "height": 128}
# Nodes that artists put between a model and its sampler, where this ComfyUI has them.
BETWEEN = """FreeU_V2 RescaleCFG PerturbedAttentionGuidance SelfAttentionGuidance EasyCache LazyCache HyperTile Mahiro
TomePatchModel DifferentialDiffusion CFGZeroStar APG TCFG ContextWindowsManual""".split()
CONTEXTS = ("ADE_StandardUniformContextOptions", "ADE_StandardStaticContextOptions")
BEYOND = 0.04  # share of the widgets that are set to what they cannot be


@dataclass
class Case:
    """One prompt and how it is queued.

    Attributes:
        graph: in API format. cancel: seconds after which Cancel is pressed, or None. twice: queued twice at once.
    """

    graph: dict[str, Any]
    cancel: float | None = None
    twice: bool = False


class Prompts:
    """Random prompts over the nodes of a server.

    Args:
        schemas: of the server's nodes, as object_info has them. seed: of everything.
    """

    def __init__(self, schemas: dict[str, Any], seed: int = 0):
        self.schemas, self.seed = schemas, seed

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
        graph |= self._sampler(rng, family)
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

    def _sampler(self, rng: random.Random, family: str) -> dict[str, Any]:
        """A sampler node, guided by itself, through Apply MotionPrompt, Steady Motion, or both."""
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
        graph: dict[str, Any] = {"settings": ("MotionPromptSettings", rest)}
        way = rng.choice(("ksampler", "ksampler", "apply", "apply", "steady", "apply and steady"))
        nodes = self._between(rng, family)
        ours = ["apply", "steady"] if way == "apply and steady" else [way] if way != "ksampler" else []
        for name in ours:
            nodes.insert(rng.randint(0, len(nodes)), name)
        steady = {"vae": ["models", 2], "strength": 1.0, **self._widgets(rng, "MotionPromptSteadyMotion", 0.3)}
        steady |= {"flow_model": ["flow", 0]} if rng.random() < 0.5 else {}
        kinds = {"apply": ("MotionPromptApply", guidance), "steady": ("MotionPromptSteadyMotion", steady)}
        before = "models"
        for name in nodes:
            kind, inputs = kinds[name] if name in kinds else self._patching(rng, name, graph)
            graph[name], before = (kind, {**inputs, "model": [before, 0]}), name
        kind = "MotionPromptKSampler" if way == "ksampler" else "KSampler"
        graph["sampler"] = (kind, {"model": [before, 0], **basic, **(guidance if way == "ksampler" else {})})
        told = {"ksampler": "sampler", "steady": None}.get(way, "apply")
        if told is not None:
            graph["report"] = ("MotionPromptReport", {"report": [told, 1], "latent": ["sampler", 0]})
        return graph

    def _between(self, rng: random.Random, family: str) -> list[str]:
        """Other packs' and ComfyUI's nodes that patch the model."""
        known = [name for name in BETWEEN if name in self.schemas]
        nodes = [rng.choice(known)] if rng.random() < 0.25 else []
        animated = family == "frames" and "ADE_UseEvolvedSampling" in self.schemas and rng.random() < 0.7
        return nodes + (["ADE_UseEvolvedSampling"] if animated else [])

    def _patching(self, rng: random.Random, node: str, graph: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Such a node; what it needs beside it goes into the graph."""
        inputs = {**self._defaults(node), **self._widgets(rng, node, 0.1)}
        if node != "ADE_UseEvolvedSampling":
            return node, inputs
        graph["motion"] = ("TinyMotionModel", {"version": rng.choice(("v1", "v2", "v3"))})
        graph["motions"] = ("ADE_ApplyAnimateDiffModelSimple", {"motion_model": ["motion", 0]})
        inputs |= {"beta_schedule": "autoselect", "m_models": ["motions", 0]}
        if rng.random() < 0.5:
            window = rng.choice(CONTEXTS)
            size = {"context_length": rng.choice((1, 2, 16)), "context_overlap": rng.choice((0, 1, 4))}
            graph["context"] = (window, {**self._defaults(window), **size})
            inputs["context_options"] = ["context", 0]
        if rng.random() < 0.3:
            freeinit = self._defaults("ADE_IterationOptsFreeInit")
            graph["passes"] = ("ADE_IterationOptsFreeInit", {**freeinit, "iterations": rng.choice((1, 2, 3))})
            settings = {**self._defaults("ADE_AnimateDiffSamplingSettings"), "iteration_opts": ["passes", 0]}
            graph["sample settings"] = ("ADE_AnimateDiffSamplingSettings", settings)
            inputs["sample_settings"] = ["sample settings", 0]
        return node, inputs

    def _defaults(self, node: str) -> dict[str, Any]:
        """A node's required widgets as they come."""
        found = {}
        for name, (kind, *more) in self.schemas[node]["input"].get("required", {}).items():
            options = more[0] if more else {}
            choices = kind if isinstance(kind, list) else options.get("options", ())
            if choices or "default" in options:
                found[name] = options.get("default", choices[0] if choices else None)
        return found

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
