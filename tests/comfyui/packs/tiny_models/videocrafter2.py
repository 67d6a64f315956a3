"""A tiny random VideoCrafter2."""

from __future__ import annotations

from typing import Any

from .models import tiny_clip, tiny_vae
from .native import tiny_video_unet


def tiny_videocrafter(seed: int = 0) -> Any:
    return tiny_video_unet("videocrafter", "VideoCrafter2", seed, temporal="lvdm", num_head_channels=16)


FAMILY = (tiny_videocrafter, tiny_clip, tiny_vae)
EMPTY_LATENT, FRAMES = ("EmptyLatentImage", "batch_size"), 3
