"""The command bench-video: LaVie, VideoCrafter2 and DynamiCrafter as shapes without weights, in every compute mode.

The pack's own networks on PyTorch's `meta` device, one evaluation of the prompt with gradients to it: operations and
bytes, beside those that the families tell before a run (nodes/host/families).
"""

from __future__ import annotations

import argparse
import importlib
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motionprompt_core.guidance.autograd import constant_layers
from motionprompt_tools.commandline import add_command
from scripts.locate import comfyuis

from .animatediff import import_comfyui, pack_module
from .measure import Cost, fused_attention, measure

LVDM = {"model_channels": 320, "context_dim": 1024, "num_heads": -1, "num_head_channels": 64, "temporal": "lvdm"}
NETWORKS: dict[str, dict[str, Any]] = {
    "lavie": {
        **LVDM,
        "in_channels": 4,
        "context_dim": 768,
        "num_heads": 8,
        "num_head_channels": -1,
        "temporal": "lavie",
    },
    "videocrafter2": {**LVDM, "in_channels": 4},
    "dynamicrafter": {**LVDM, "in_channels": 8, "image_attention": True},
}
FRAMES, TEXT, IMAGE_TOKENS, GIB = 16, 77, 256, 2**30


@dataclass(frozen=True)
class Counted:
    """Costs of one evaluation: `plain` without gradients; the others, by (truncated, checkpointed), forward alone and
    with the backward pass."""

    plain: Cost
    forward: dict[tuple[bool, bool], Cost]
    whole: dict[tuple[bool, bool], Cost]


def count(family: str, height: int, width: int) -> Counted:
    """Costs of a family's network in fp16 for a prompt, 16 frames of height x width pixels."""
    import_comfyui(comfyuis()[0])
    networks, checkpoints = pack_module("nodes.host.networks"), pack_module("nodes.host.checkpoints")
    attention = importlib.import_module("comfy.ldm.modules.attention")
    operations = importlib.import_module("comfy.ops").disable_weight_init
    config = NETWORKS[family]
    unet = pack_module("nodes.host.video_unet.unet").VideoUNet(
        **config, operations=operations, dtype=torch.float16, device="meta"
    )
    unet.eval().requires_grad_(False)
    x = _empty(FRAMES, config["in_channels"], height // 8, width // 8)
    extra: dict[str, Tensor] = {} if family == "lavie" else {"fps": _empty(FRAMES)}
    if config.get("image_attention"):
        extra["image_tokens"] = _empty(FRAMES, IMAGE_TOKENS, config["context_dim"])

    def evaluate(text: Tensor) -> Tensor:
        options = {"optimized_attention_override": lambda f, *a, **k: attention.attention_pytorch(*a, **k)}
        return unet(x, _empty(FRAMES), text.expand(FRAMES, -1, -1), transformer_options=options, **extra)

    text = _empty(1, TEXT, config["context_dim"])
    with fused_attention():
        with torch.no_grad():
            _, plain = measure(lambda: evaluate(text))
        forward, whole = {}, {}
        for key in ((False, False), (False, True), (True, False), (True, True)):
            early = constant_layers(unet.early_layers() if key[0] else ())
            blocks = checkpoints.checkpointed(networks.unet_layers(unet) if key[1] else (), nullcontext)
            with early, blocks:
                _, forward[key] = measure(lambda: evaluate(text.detach().requires_grad_()))
                _, whole[key] = measure(lambda: _gradient(evaluate, text.detach().requires_grad_()))
    return Counted(plain, forward, whole)


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta", dtype=torch.float16)


def _gradient(evaluate: Any, text: Tensor) -> Tensor:
    out = evaluate(text)
    return torch.autograd.grad(out, text, torch.empty_like(out))[0]


def told(family: str, height: int, width: int) -> dict[str, float]:
    """What the family says: costs in forward passes, and bytes for gradients; by the names of `found`."""
    import_comfyui(comfyuis()[0])
    known = pack_module("nodes.host.families").available_families()
    handler = next(one for one in known if one.name == family)
    file = "videocrafter" if family == "videocrafter2" else family
    variant = pack_module(f"nodes.host.video_unet.{file}").FAMILY.variants[0]
    # ComfyUI's memory_required of fp16 latents
    inference = FRAMES * height * width / 64 * 2 * 0.01 * variant.memory * 2**20
    costs = vars(handler.costs)
    memory = {"saved": handler.memory.saved * inference, "checkpointed": handler.memory.checkpointed * inference}
    return {"inference": inference, **memory, **costs}


def found(counted: Counted) -> dict[str, float]:
    """The same quantities, counted."""
    plain = counted.plain.flops
    part = {key: cost.flops / plain for key, cost in counted.whole.items()}
    return {
        "inference": counted.plain.peak,
        "saved": counted.whole[False, False].peak,
        "checkpointed": counted.whole[False, True].peak,
        "backward": part[False, False] - 1,
        "again": part[False, True] - part[False, False],
        "truncated_backward": part[True, False] - 1,
        "truncated_again": part[True, True] - part[True, False],
    }


def add_to(commands: Any) -> None:
    """Adds the command to an argparse parser's subparsers."""
    bench = add_command(commands, "bench-video", run, "what guidance costs on LaVie, VideoCrafter2 and DynamiCrafter")
    bench.add_argument("--size", default="320x512", help="height x width in pixels")
    bench.add_argument("--only", choices=list(NETWORKS), help="one of the families")


def run(options: argparse.Namespace) -> None:
    """Prints a table of the modes, and what is told beside what is counted."""
    height, width = (int(number) for number in options.size.split("x"))
    names = {(False, False): "exact, balanced", (False, True): "with checkpoints"}
    names |= {(True, False): "fast", (True, True): "fast with checkpoints"}
    print("| | TFLOP | times a plain evaluation | kept, GiB | peak, GiB |\n|---|---|---|---|---|")
    for family in [options.only] if options.only else NETWORKS:
        counted = count(family, height, width)
        plain = counted.plain
        print(f"| {family}, plain | {plain.flops / 1e12:.2f} | 1.00 | 0.00 | {plain.peak / GIB:.2f} |")
        for key, name in names.items():
            whole, kept = counted.whole[key], counted.forward[key].kept
            print(
                f"| {family}, {name} | {whole.flops / 1e12:.2f} | {whole.flops / plain.flops:.2f} "
                f"| {kept / GIB:.2f} | {whole.peak / GIB:.2f} |"
            )
        said = told(family, height, width)
        print(f"| told / counted | {', '.join(f'{k} {said[k] / v:.2f}' for k, v in found(counted).items())} | | | |")
