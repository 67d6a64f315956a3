"""MiniMax H3: picture and sound in one transformer, a video VAE of 17 frames in 5 latents, Qwen3-VL for its text."""

from __future__ import annotations

import comfy.model_base
from torch import Tensor

from ..comfy_types import BaseModel, CondLists
from ..core_functions import newer
from .base import register_family
from .layouts import LatentVideoFamily

# Of the latents of a chunk, one after the other.
FRAMES = (1, 4, 4, 4, 4)


@register_family
class MiniMaxH3(LatentVideoFamily):
    name = "minimax"
    title = "MiniMax H3"
    tokens = False

    def matches(self, model: BaseModel) -> bool:
        return isinstance(model, newer(comfy.model_base, "MiniMaxH3", ()))

    def free(self, conds: CondLists, video: Tensor) -> Tensor:
        """0 in latents that hold a keyframe."""
        free = super().free(conds, video)
        holders = [latent for latent in range(video.shape[2]) for _ in range(FRAMES[latent % len(FRAMES)])]
        for keyframes in (cond.get("minimax_keyframes") for entries in conds.values() for cond in entries):
            for keyframe in keyframes or ():
                if keyframe.get("latent") is not None:
                    first = holders[keyframe["resolved_frame_index"]]
                    free[:, :, first : first + keyframe["latent"].shape[2]] = 0
        return free
