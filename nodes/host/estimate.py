"""What a guided run will cost, said before it starts."""

from __future__ import annotations

from typing import Any

import torch

from ...motionprompt_core.economy import cost_ratio
from .memory import gradient_memory

# Decoding one frame pair forwards and backwards, in evaluations of one frame by SD1.5's UNet (counted at 512 px).
_PAIR = {"AutoencoderKL": 9.2, "AutoencodingEngine": 9.2, "TAESD": 0.5}
_FLOW = 0.3


def cost_line(run: Any, noise: torch.Tensor, num_steps: int) -> str:
    """One line about time, as a ratio to the plain video's, and about memory for gradients.

    The operations are counted for SD1.5 with AnimateDiff; other models differ.
    """
    settings = run.settings
    uncond = getattr(run.guider, "cfg", 1.0) != 1.0
    decoder = type(run.patch.vae.first_stage_model).__name__
    frames = noise.shape[2] if noise.ndim == 5 else len(noise)
    pair = (_PAIR.get(decoder, 1.0) + _FLOW) / frames

    def costs(checkpointed: bool) -> str:
        ratio = cost_ratio(settings, num_steps, uncond, checkpointed, pair)
        memory = gradient_memory(run.guider.model_patcher, run, noise.shape, checkpointed)
        return f"about {ratio:.2f} times the time of the plain video and {memory / 2**30:.1f} GiB for gradients"

    line = f"MotionPrompt, mode {settings.mode}: {costs(settings.checkpointing == 'on')}"
    if settings.checkpointing == "auto":
        line += f"; with checkpoints, if memory is short, {costs(True)}"
    if pair * frames > 5:
        line += ". A TAESD VAE would save most of the decoding"
    return line + "."
