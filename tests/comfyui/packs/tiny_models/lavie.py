"""A tiny random LaVie."""

from __future__ import annotations

from typing import Any

from .models import tiny_clip, tiny_vae
from .native import tiny_video_unet


def tiny_lavie(seed: int = 0) -> Any:
    """With one head, as each needs 32 dimensions for the rotary positions."""
    return tiny_video_unet("lavie", "LaVie", seed, temporal="lavie", num_heads=1, num_head_channels=-1)


FAMILY = (tiny_lavie, tiny_clip, tiny_vae)
EMPTY_LATENT, FRAMES = ("EmptyLatentImage", "batch_size"), 3
EPSILON = 4.8e-3  # of the tokens' norm: with shorter differences rounding shows, 1 % at 1.2e-3 and 0.1 % here
