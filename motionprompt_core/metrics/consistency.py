"""VBench's subject and background consistency: do the frames look alike to a network that knows pictures?

Subject consistency looks with DINO ViT-B/16, background consistency with CLIP ViT-B/32. Neither is small, so both are
measured only where the weights are; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import center_crop, normalize

from ..media.files import load_state, read_safetensors
from .video import as_video

DINO, CLIP = "vit_base_patch16_224.dino", "vit_base_patch32_clip_224.openai"  # timm's names

Embedder = Callable[[Tensor], Tensor]


def frame_consistency(features: Tensor) -> float:
    """Mean over the frames from the second on of (max(0, cos(previous)) + max(0, cos(first))) / 2, 0..1.

    Args:
        features: (T, D), one vector a frame, T at least 2.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"consistency: expected features (T, D) of at least 2 frames, got {tuple(features.shape)}.")
    unit = F.normalize(features.float(), dim=-1)
    previous, first = (unit[1:] * unit[:-1]).sum(-1), (unit[1:] * unit[:1]).sum(-1)
    return ((previous.clamp(min=0) + first.clamp(min=0)) / 2).mean().item()


def consistency(frames: Tensor, embed: Embedder) -> float:
    """The same for a video (T, 3, H, W) or (T, H, W, 3) in [0, 1], seen by `embed`: (T, 3, H, W) -> (T, D)."""
    with torch.no_grad():
        return frame_consistency(embed(as_video(frames)))


class ImageEmbedder(nn.Module):
    """A ViT of timm's that turns frames (T, 3, H, W) in [0, 1] into features (T, D).

    As in VBench: DINO sees the whole frame scaled to 224 x 224, CLIP the square in the middle.
    """

    def __init__(self, name: str, path: str | Path, batch: int = 16):
        """
        Args:
            name: `DINO` or `CLIP`. path: its weights, a .safetensors with timm's names.

        Raises:
            ValueError: the file does not hold these weights.
        """
        super().__init__()
        import timm

        self.name, self.batch = name, batch
        self.network: Any = timm.create_model(name, num_classes=512 if name == CLIP else 0)
        load_state(self.network, read_safetensors(path, f"weights of {name}")[0], path, f"weights of {name}")
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor) -> Tensor:
        if self.name == CLIP:
            frames = center_crop(frames, [min(frames.shape[-2:])])
        mode = "bicubic" if self.name == CLIP else "bilinear"
        frames = F.interpolate(frames, size=(224, 224), mode=mode, antialias=True, align_corners=False).clamp(0, 1)
        frames = normalize(frames, self.network.pretrained_cfg["mean"], self.network.pretrained_cfg["std"])
        return torch.cat([self.network(part) for part in frames.split(self.batch)])
