"""Operations on pictures (B, C, H, W): warping, blur, Laplacian; differentiable, any float type."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(image: Tensor, flow: Tensor, mode: Literal["bilinear", "bicubic"] = "bilinear") -> Tensor:
    """Look `image` (B, C, H, W) up at every pixel plus `flow` (B, 2, H, W; px, x first), border pixels repeated.

    Bilinear softens what it moves; bicubic hardly does, and may overshoot a little at edges.
    """
    height, width = image.shape[-2:]
    # Positions need more digits than half precision has: at 512 px its step is a quarter to two pixels.
    flow = flow if flow.dtype == torch.float64 else flow.float()
    ys = torch.linspace(-1, 1, height, device=flow.device, dtype=flow.dtype).view(1, height, 1)
    xs = torch.linspace(-1, 1, width, device=flow.device, dtype=flow.dtype).view(1, 1, width)
    grid = torch.stack((xs + flow[:, 0] / ((width - 1) / 2), ys + flow[:, 1] / ((height - 1) / 2)), dim=-1)
    warped = F.grid_sample(image.to(flow.dtype), grid, mode=mode, padding_mode="border", align_corners=True)
    return warped.to(image.dtype)


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Blur (B, C, H, W) with standard deviation `sigma` px, border repeated."""
    radius = min(math.ceil(3 * sigma), min(x.shape[-2:]) - 1)
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    x = F.pad(x, (radius,) * 4, mode="replicate")
    x = F.conv2d(x, kernel.unsqueeze(2), groups=x.shape[1])
    return F.conv2d(x, kernel.unsqueeze(3), groups=x.shape[1])


def laplacian(frames: Tensor) -> Tensor:
    """Laplacian of the luma of frames (N, 3, H, W), inner pixels only: (N, 1, H - 2, W - 2)."""
    luma = (frames * frames.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)).sum(1, keepdim=True)
    kernel = luma.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3)
    return F.conv2d(luma, kernel)
