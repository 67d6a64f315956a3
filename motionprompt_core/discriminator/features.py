"""What the discriminator is shown of flow: how it changes along its path, and its energy at several scales."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..media.ops import gaussian_blur, warp

FAINTEST = 3e-4  # of the frame's side: motion that counts as none on a logarithmic scale


def changes_of_motion(flows: Tensor, stretch: Tensor) -> list[Tensor]:
    """The first of some successive flows (B, 2 * flows, H, W), px, and by how much each next one differs from the one
    before it, at the place where that has led; a list of (B, 2, H, W).

    Args:
        stretch: px of this grid that a px of flow is, across and down; (1, 2, 1, 1).
    """
    parts = list(flows.split(2, dim=1))
    pairs = zip(parts[:-1], parts[1:], strict=True)
    return parts[:1] + [warp(after, before * stretch) - before for before, after in pairs]


def successive_flows(flow: Tensor, flows: int, gap: int = 1) -> Tensor:
    """Flows (T, 2, H, W) from every frame to the one `gap` later -> each with those after it, (T', 2 * flows, H, W).

    Raises:
        ValueError: the video is too short for one.
    """
    count = len(flow) - (flows - 1) * gap
    if count < 1:
        raise ValueError(
            f"flow discriminator: it judges {flows} flows in a row, {gap} frame(s) apart, and there are {len(flow)}. "
            "Use a longer video."
        )
    return torch.cat([flow[k * gap : k * gap + count] for k in range(flows)], dim=1)


def energy_pyramid(flow: Tensor, bands: int) -> Tensor:
    """Multi-scale energy: how much moves around each pixel, and how much of that is as fine as 1/64 of the frame, 1/32
    and so on.

    Args:
        flow: (B, 2, S, S), sides of the frame.

    Returns:
        (B, 1 + bands, S, S), about -1 to 1 for common motion: logarithms of mean squares.
    """
    size, sigma = flow.shape[-1], flow.shape[-1] / 64
    rest, layers = flow, [flow]
    for _ in range(bands):
        coarser = gaussian_blur(rest, sigma)
        layers.append(rest - coarser)
        rest = F.avg_pool2d(coarser, 2)
    powers = [gaussian_blur(layer.square().sum(1, keepdim=True), 2 * sigma) for layer in layers]
    power = torch.cat([F.interpolate(x, size=(size, size), mode="bilinear") for x in powers], dim=1)
    return 0.25 * (power / FAINTEST**2 + 1).log() - 1
