"""What guidance of the estimate costs beside plain sampling, counted on shapes without weights.

The command cost-estimate counts, and writes docs/cost.md from docs/cost/introduction.md and docs/cost/estimate.json.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motionprompt_core.commandline import add_command
from motionprompt_core.estimate.correct import correct
from motionprompt_core.estimate.steady import steady
from motionprompt_core.estimate.window import MOST
from motionprompt_core.flow import load_flow_model

from . import animatediff
from .animatediff import AnimateDiffShapes
from .measure import Cost, fused_attention, measure

STEPS = 20
FOLDER = Path("docs/cost")
MARK = "<!-- correcting the estimate -->"
# width and height of a transformer, and the pixels of a video: frames, height, width
WAN = {
    "Wan 2.1, 1.3B": {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30},
    "Wan 2.1, 14B": {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40},
}
WAN_VIDEO, LTX_VIDEO = (81, 480, 832), (97, 512, 768)


def correction(x0: Tensor, decode: Callable[[Tensor], Tensor], encode: Callable[[Tensor], Tensor], batch: int) -> Cost:
    """One correction of the whole estimate, `batch` latents at a time and two frame pairs."""
    flow = load_flow_model("lucas_kanade_coarse").to(x0.device)
    return measure(lambda: correct(x0, decode, encode, lambda frames: steady(frames, flow, batch=2), batch))[1]


def row(model: str, size: str, autoencoder: str, step: Cost, change: Cost) -> dict[str, Any]:
    return {
        "model": model,
        "size": size,
        "autoencoder": autoencoder,
        "step_tflop": round(step.flops / 1e12, 2),
        "correction_tflop": round(change.flops / 1e12, 2),
        "times_plain": round(1 + MOST * change.flops / (STEPS * step.flops), 3),
        "plain_gib": round(step.peak / 2**30, 2),
        "correction_gib": round(change.peak / 2**30, 2),
    }


def animatediff_rows(subject: AnimateDiffShapes) -> Iterator[dict[str, Any]]:
    """Stable Diffusion 1.5 with AnimateDiff at 512 px, prompt and negative prompt in one batch."""
    cond = torch.empty(2, 77, 768, device=subject.device, dtype=subject.dtype)
    for frames in (16, 64):
        step = measure(lambda frames=frames: subject.denoise(frames, 512, cond[:1], conds=2))[1]
        for autoencoder in reversed(subject.decoders):

            def decode(latents: Tensor, autoencoder: str = autoencoder) -> Tensor:
                return subject.decode(latents, autoencoder)

            def encode(pictures: Tensor, autoencoder: str = autoencoder) -> Tensor:
                return subject.encode_pictures(pictures, autoencoder)

            change = correction(_empty(frames, 4, 64, 64), decode, encode, 2)
            name = {"taesd": "TAESD", "vae": "the full VAE"}[autoencoder]
            yield row("SD1.5 with AnimateDiff v2", f"{frames} frames of 512 x 512", name, step, change)


def video_rows() -> Iterator[dict[str, Any]]:
    """Wan and LTX-Video with tiny autoencoders of their latents' shape; two evaluations a step."""
    operations = importlib.import_module("comfy.ops").disable_weight_init
    options = {"dtype": torch.float16, "device": "meta", "operations": operations}
    for name, shape in WAN.items():
        model = importlib.import_module("comfy.ldm.wan.model").WanModel(**shape, **options)
        frames, height, width = WAN_VIDEO
        latents = _empty(1, 16, (frames - 1) // 4 + 1, height // 8, width // 8).half()
        text = _empty(1, 512, 4096).half()
        step = _evaluated(lambda model=model, x=latents, text=text: model(x, _empty(1), text, **_attention()))
        yield row(name, f"{frames} frames of {width} x {height}", "TAEHV", step, _tiny(*latents.shape[1:]))
    model = importlib.import_module("comfy.ldm.lightricks.model").LTXVModel(**options)
    frames, height, width = LTX_VIDEO
    latents = _empty(1, 128, (frames - 1) // 8 + 1, height // 32, width // 32).half()
    text = _empty(1, 128, 4096).half()
    step = _evaluated(lambda: model(latents, _empty(1), text, None, **_attention()))
    yield row("LTX-Video, 2B", f"{frames} frames of {width} x {height}", "TAEHV", step, _tiny(*latents.shape[1:]))


@functools.cache
def _tiny(channels: int, *size: int) -> Cost:
    """A correction of latents (channels, T, h, w) with a tiny autoencoder that compresses time."""
    network = importlib.import_module("comfy.taesd.taehv").TAEHV(channels).to("meta", torch.float16)
    # It puts what is done where ComfyUI keeps such things, on the CPU; there is nothing to put.
    management: Any = importlib.import_module("comfy.model_management")
    management.intermediate_device = lambda: torch.device("meta")

    def decode(x0: Tensor) -> Tensor:
        return network.decode(x0.half().movedim(0, 1)[None])[0].movedim(1, 0).float()

    def encode(pictures: Tensor) -> Tensor:
        return network.encode(pictures.half().movedim(0, 1)[None])[0].movedim(1, 0).float()

    return correction(_empty(size[0], channels, *size[1:]), decode, encode, size[0])


def _evaluated(evaluate: Callable[[], object]) -> Cost:
    """Prompt and negative prompt, one after the other."""
    return measure(evaluate)[1] * 2


def _attention() -> dict[str, Any]:
    attention = importlib.import_module("comfy.ldm.modules.attention").attention_pytorch
    return {"transformer_options": {"optimized_attention_override": lambda f, *a, **k: attention(*a, **k)}}


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def page(folder: Path) -> str:
    """docs/cost.md: introduction.md with the table of estimate.json in the place of its mark."""
    rows = json.loads((folder / "estimate.json").read_text(encoding="utf-8"))
    lines = [
        f"{STEPS} steps, of which {MOST} are corrected; fp16, prompt and negative prompt in every step, attention as "
        "in fused kernels.\n\n    python -m research cost-estimate --count\n",
        "| model | video | autoencoder | a step, TFLOP | a correction, TFLOP | times plain | peak of a step, GiB "
        "| peak of a correction, GiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        cells = [one[key] for key in ("model", "size", "autoencoder", "step_tflop", "correction_tflop")]
        cells += [f"**{one['times_plain']:.3f}**", one["plain_gib"], one["correction_gib"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    introduction = (folder / "introduction.md").read_text(encoding="utf-8")
    return introduction.replace(MARK, "\n".join(lines))


def add_to(commands: Any) -> None:
    """Adds the command to an argparse parser's subparsers."""
    command = add_command(commands, "cost-estimate", run, "write docs/cost.md; what guidance of the estimate costs")
    command.add_argument("--count", action="store_true", help="count anew: needs ComfyUI and AnimateDiff-Evolved")
    command.add_argument("--folder", type=Path, default=FOLDER, help="folder with introduction.md and estimate.json")


def run(options: argparse.Namespace) -> None:
    """Raises ValueError if there is nothing to count with."""
    if options.count:
        subject = animatediff.find("meta")
        if subject is None:
            raise ValueError("ComfyUI or AnimateDiff-Evolved is absent: set COMFYUI_PATH to a ComfyUI that has it.")
        rows = []
        with torch.no_grad(), fused_attention():
            for found in (*animatediff_rows(subject), *video_rows()):
                print(json.dumps(found), flush=True)
                rows.append(found)
        text = "[\n" + ",\n".join(f" {json.dumps(one)}" for one in rows) + "\n]\n"
        (options.folder / "estimate.json").write_text(text, encoding="utf-8", newline="\n")
    target = options.folder.with_suffix(".md")
    target.write_text(page(options.folder), encoding="utf-8", newline="\n")
    print(f"wrote {target}")
