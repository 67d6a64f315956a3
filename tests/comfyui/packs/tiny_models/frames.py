"""A tiny random SD1.5; AnimateDiff-Evolved's motion models are put into it where it is there."""

from __future__ import annotations

from .models import tiny_clip, tiny_model, tiny_vae

FAMILY = (tiny_model, tiny_clip, tiny_vae)
EMPTY_LATENT, FRAMES = ("EmptyLatentImage", "batch_size"), 3
