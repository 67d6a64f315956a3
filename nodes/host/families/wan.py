"""Wan 2.1 and 2.2: a transformer, a causal video VAE of 4 frames a latent, a umT5 text encoder."""

from __future__ import annotations

from typing import Any

import comfy.model_base

from .base import GradientMemory, register_family
from .layouts import LatentVideoFamily


@register_family
class Wan(LatentVideoFamily):
    name = "wan"
    title = "Wan"
    # Counted for Wan 2.1 1.3B with 81 frames at 832 x 480 in bf16: 59.0 GiB, or 6.9 with checkpoints, where inference
    # is said to take 1.77 GiB; and scaled from its 30 blocks to the 40 of 14B, which ComfyUI's estimate leaves out.
    memory = GradientMemory(saved=44.4, checkpointed=4.5)

    def matches(self, model: Any) -> bool:
        return isinstance(model, comfy.model_base.WAN21)
