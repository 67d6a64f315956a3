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
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from motionprompt_core.estimate.correct import correct
from motionprompt_core.estimate.steady import RADIUS, steady
from motionprompt_core.estimate.window import MOST
from motionprompt_core.flow import load_flow_model
from motionprompt_tools.commandline import add_command

from . import animatediff
from .animatediff import AnimateDiffShapes, pack_module
from .measure import Cost, fused_attention, measure

STEPS = (20, 8, 4)
FOLDER = Path("docs/cost")
MARK = "<!-- correcting the estimate -->"
# Width and height of a transformer.
WAN = {
    "Wan 2.1, 1.3B": {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30},
    "Wan 2.1 and 2.2, 14B": {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40},
}


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
        "times_plain": [round(1 + MOST * change.flops / (steps * step.flops), 3) for steps in STEPS],
        "plain_gib": round(step.peak / 2**30, 2),
        "correction_gib": round(change.peak / 2**30, 2),
        "beyond_gib": round(max(0.0, change.peak - step.peak) / 2**30, 2),
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
    """Video models with tiny autoencoders of their latents' shape. Wan and LTX-Video evaluate prompt and negative
    prompt in each step, LTX-2, which is run without CFG, the prompt."""
    operations = importlib.import_module("comfy.ops").disable_weight_init
    options = {"dtype": torch.float16, "device": "meta", "operations": operations}
    attention = importlib.import_module("comfy.ldm.modules.attention").attention_pytorch
    fused: Any = {"transformer_options": {"optimized_attention_override": lambda f, *a, **k: attention(*a, **k)}}

    def counted(name: str, size: str, latents: Tensor, evaluations: int, evaluate: Callable[[], object]) -> Any:
        return row(name, size, "TAEHV", measure(evaluate)[1] * evaluations, _tiny(*latents.shape[1:]))

    wan, text = _half(1, 16, 21, 60, 104), _half(1, 512, 4096)
    for name, shape in WAN.items():
        model = importlib.import_module("comfy.ldm.wan.model").WanModel(**shape, **options)
        evaluate = functools.partial(model, wan, _half(1), text, **fused)
        yield counted(name, "81 frames of 832 x 480", wan, 2, evaluate)
    ltx, text = _half(1, 128, 13, 16, 24), _half(1, 128, 4096)
    model = importlib.import_module("comfy.ldm.lightricks.model").LTXVModel(**options)
    evaluate = functools.partial(model, ltx, _half(1), text, None, **fused)
    yield counted("LTX-Video, 2B", "97 frames of 768 x 512", ltx, 2, evaluate)
    model = importlib.import_module("comfy.ldm.lightricks.av_model").LTXAVModel(**options)
    for width, height in ((640, 352), (1280, 704)):
        ltx, sound, text = _half(1, 128, 16, height // 32, width // 32), _half(1, 8, 126, 16), _half(1, 1024, 7680)
        evaluate = functools.partial(model, [ltx, sound], _half(1), text, None, **fused)
        yield counted("LTX-2, 19B, with sound", f"121 frames of {width} x {height}", ltx, 1, evaluate)


@functools.cache
def _tiny(channels: int, length: int, *size: int) -> Cost:
    """A correction, as the nodes make it, of latents (channels, T, h, w) of a tiny autoencoder that compresses time.

    Counted on two short videos: each further latent takes as much, and no memory.
    """
    network = importlib.import_module("comfy.taesd.taehv").TAEHV(channels).to("meta", torch.float16)
    same = {"process_input": lambda x: x, "process_output": lambda x: x}
    vae = SimpleNamespace(first_stage_model=network, device="meta", vae_dtype=torch.float16, **same)
    model = SimpleNamespace(process_latent_in=lambda x: x, process_latent_out=lambda x: x)
    decoder = pack_module("nodes.host.decode").SliceDecoder(vae, model)
    stream = pack_module("nodes.host.tiny_stream").TinyStream.of(decoder)
    flow = load_flow_model("lucas_kanade_coarse")

    def counted(latents: int) -> Cost:
        return measure(lambda: stream.correction(_empty(latents, channels, *size), flow, batch=2))[1]

    # Frames that see as many neighbours as any, in the shorter one already.
    short = 2 * RADIUS // decoder.factor + 2
    less, more = counted(short), counted(short + 1)
    return Cost(less.flops + (length - short) * (more.flops - less.flops), 0.0, more.peak)


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def _half(*shape: int) -> Tensor:
    return _empty(*shape).half()


def page(folder: Path) -> str:
    """docs/cost.md: introduction.md with the table of estimate.json in the place of its mark."""
    rows = json.loads((folder / "estimate.json").read_text(encoding="utf-8"))
    lines = [
        f"At most {MOST} steps of a run are corrected; fp16, attention as in fused kernels.\n\n"
        "    python -m research cost-estimate --count\n",
        "| model | video | autoencoder | a step, TFLOP | a correction, TFLOP "
        + "".join(f"| times plain, {steps} steps " for steps in STEPS)
        + "| peak of a step, GiB | peak of a correction, GiB | beyond plain, GiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        cells = [one[key] for key in ("model", "size", "autoencoder", "step_tflop", "correction_tflop")]
        cells += [
            f"**{times:.3f}**" if steps == 20 else f"{times:.3f}"
            for steps, times in zip(STEPS, one["times_plain"], strict=True)
        ]
        cells += [one["plain_gib"], one["correction_gib"], f"**{one['beyond_gib']}**"]
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
