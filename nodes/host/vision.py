"""Networks that look at pictures, for the metrics: ComfyUI's CLIP vision, and DINO if its weights are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_management
from torch import Tensor

from ...motionprompt_core.metrics.consistency import DINO, Embedder, ImageEmbedder
from . import folders
from .comfy_types import ClipVision
from .models import ManagedModel

DINO_FILE = f"{DINO}.safetensors"


def frames_on_device(images: Tensor) -> Tensor:
    """An IMAGE batch (T, H, W, 3) where the networks are, without an alpha channel."""
    return images[..., :3].to(comfy.model_management.get_torch_device())


def video_frames(name: str, value: Any, vae: Any = None) -> tuple[Tensor, float | None]:
    """An IMAGE, VIDEO or LATENT as frames (T, H, W, C) in [0, 1], and its frames a second if it knows them.

    Raises:
        ValueError: a latent without a VAE.
    """
    if isinstance(value, Tensor):
        return value, None
    if isinstance(value, Mapping):
        if vae is None:
            raise ValueError(f"{name} is a latent: connect the model's VAE to vae, or decode it before.")
        samples = value["samples"]
        frames = vae.decode(samples.unbind()[0] if getattr(samples, "is_nested", False) else samples)
        return frames.reshape(-1, *frames.shape[-3:]), None
    parts = value.get_components()
    return parts.images, float(parts.frame_rate)


def dino_embedder() -> ManagedModel | None:
    """DINO ViT-B/16 from models/motionprompt; None if it is not there."""
    if DINO_FILE not in folders.weight_files():
        return None
    return ManagedModel(ImageEmbedder(DINO, folders.find(DINO_FILE)))


def vision_embedder(clip_vision: ClipVision) -> Embedder:
    """ComfyUI's CLIP_VISION as frames (T, 3, H, W) -> features (T, D)."""

    def embed(frames: Tensor) -> Tensor:
        output = clip_vision.encode_image(frames.movedim(1, -1))
        return output["image_embeds"].float()

    return embed
