"""Wan 2.1 and 2.2: a transformer, a causal video VAE of 4 frames a latent, a umT5 text encoder."""

from __future__ import annotations

import comfy.model_base
import torch

from ..comfy_types import BaseModel, CondLists
from .base import GradientMemory, register_family
from .layouts import LatentVideoFamily

# Not every ComfyUI has them.
_ANIMATE = tuple(
    getattr(comfy.model_base, name) for name in ("WAN22_Animate", "WAN_Animate2") if hasattr(comfy.model_base, name)
)


@register_family
class Wan(LatentVideoFamily):
    name = "wan"
    title = "Wan"
    # Counted for Wan 2.1 1.3B with 81 frames at 832 x 480 in bf16: 59.0 GiB, or 6.9 with checkpoints, where inference
    # is said to take 1.77 GiB; and scaled from its 30 blocks to the 40 of 14B, which ComfyUI's estimate leaves out.
    memory = GradientMemory(saved=44.4, checkpointed=4.5)

    def matches(self, model: BaseModel) -> bool:
        return isinstance(model, comfy.model_base.WAN21)

    def leading(self, conds: CondLists, model: BaseModel) -> int:
        """The reference picture of VACE, and of Animate, stands before the video; Trim Video Latent takes it off."""
        if isinstance(model, _ANIMATE):
            return 1
        found = [cond["vace_frames"] for entries in conds.values() for cond in entries if cond.get("vace_frames")]
        return _references(found[0][0], model) if found else 0


def _references(control: torch.Tensor, model: BaseModel) -> int:
    """How many of VACE's control latents (1, 2 C, T, h, w) are a reference: only these have nothing in the half that
    holds what is to be repainted."""
    channels = control.shape[1] // 2
    nothing = model.latent_format.process_out(torch.zeros_like(control[:, channels:]))
    empty = (control[:, channels:] == nothing).flatten(3).all(3).all(1)[0]
    return int(empty.long().cumprod(0).sum())
