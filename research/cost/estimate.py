"""What guidance of the estimate costs beside Stable Diffusion 1.5 with AnimateDiff, counted on shapes without weights.

python -m research.cost.estimate
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch

from motionprompt_core.estimate.correct import correct
from motionprompt_core.estimate.steady import steady
from motionprompt_core.flow import load_flow_model

from . import animatediff
from .animatediff import AnimateDiffShapes
from .measure import Cost, fused_attention, measure

# Of 20 steps, as the demo model's window has them.
STEPS, CORRECTED = 20, 5


def correction(subject: AnimateDiffShapes, frames: int, size: int, autoencoder: str, batch: int) -> Cost:
    """One correction of all frames' estimate, `batch` frames and frame pairs at a time."""
    flow = load_flow_model("lucas_kanade_coarse").to(subject.device)
    x0 = torch.empty(frames, 4, size // 8, size // 8, device=subject.device)
    return measure(
        lambda: correct(
            x0,
            lambda latents: subject.decode(latents, autoencoder),
            lambda pictures: subject.encode_pictures(pictures, autoencoder),
            lambda pictures: steady(pictures, flow, batch=batch),
            batch,
        )
    )[1]


def rows(subject: AnimateDiffShapes) -> Iterator[dict[str, Any]]:
    """For each length, autoencoder and size of the pieces: operations and memory beside the plain run's."""
    with torch.no_grad(), fused_attention():
        cond = torch.empty(2, 77, 768, device=subject.device, dtype=subject.dtype)
        for frames in (16, 64):
            plain = measure(lambda frames=frames: subject.denoise(frames, 512, cond[:1], conds=2))[1]
            for autoencoder in reversed(subject.decoders):
                for batch in (2, 1):
                    cost = correction(subject, frames, 512, autoencoder, batch)
                    yield (
                        {
                            "frames": frames,
                            "autoencoder": autoencoder,
                            "batch": batch,
                            "step_tflop": plain.flops / 1e12,
                            "correction_tflop": cost.flops / 1e12,
                            "times_plain": 1 + CORRECTED * cost.flops / (STEPS * plain.flops),
                            "plain_gib": plain.peak / 2**30,
                            "correction_gib": cost.peak / 2**30,
                        }
                    )


def main() -> None:
    subject = animatediff.find("meta")
    if subject is None:
        raise SystemExit("ComfyUI or AnimateDiff-Evolved is absent: set COMFYUI_PATH to a ComfyUI that has it.")
    for row in rows(subject):
        print(json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}), flush=True)


if __name__ == "__main__":
    main()
