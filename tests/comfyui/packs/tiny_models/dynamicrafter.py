"""A tiny random DynamiCrafter, and its prompts with an image in them."""

from __future__ import annotations

from typing import Any

import torch

from .models import pack_module, tiny_clip, tiny_vae
from .native import tiny_clip_vision, tiny_video_unet


def tiny_dynamicrafter(seed: int = 0, variant: str = "512") -> Any:
    config = {"temporal": "lvdm", "num_head_channels": 16, "in_channels": 8, "image_attention": True}
    return tiny_video_unet("dynamicrafter", variant, seed, **config)


def with_image(conditioning: Any, size: int = 64) -> Any:
    """A prompt as DynamiCrafter Image to Video makes it."""
    node = pack_module("nodes.video_checkpoint").DynamiCrafterImageToVideo
    image = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(9))
    made = node.execute(conditioning, conditioning, tiny_vae(), tiny_clip_vision(), image, size, size, 16, 0)
    return made.args[0]


FAMILY = (tiny_dynamicrafter, tiny_clip, tiny_vae)
EMPTY_LATENT, FRAMES = ("EmptyLatentImage", "batch_size"), 3
PROMPT = with_image
