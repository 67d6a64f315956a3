"""Optical flow of a clip, and its augmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..flow.base import FlowModel
from ..media.ops import gaussian_blur


@torch.no_grad()
def extract_flows(
    flow_model: FlowModel,
    clip: Tensor,
    gaps: Sequence[int] = (1,),
    *,
    pairs: int | None = None,
    batch: int = 8,
    device: torch.device | str = "cpu",
    seed: int = 0,
    flows: int = 1,
) -> Tensor:
    """Flow between frames of a clip, (P, 2 * flows, H, W) float32 on the CPU, px.

    Args:
        flow_model: the one that will guide, on `device`.
        clip: (T, 3, H, W), RGB in [0, 1].
        gaps: distances in frames. Give the real and the generated side the same gaps and frame rate.
        pairs: at most so many pairs, drawn at random by `seed`; None takes all.
        batch: pairs at a time.
        flows: how many in a row make one example, see `DiscriminatorConfig.flows`; each pair is then a row of frames.

    Raises:
        ValueError: the clip has no pair at any of the gaps.
    """
    rows = [list(range(i, i + flows * gap + 1, gap)) for gap in gaps for i in range(len(clip) - flows * gap)]
    if not rows:
        raise ValueError(f"a clip has {len(clip)} frame(s), expected more than {flows} times the gap, {min(gaps)}.")
    chosen = torch.tensor(rows)
    if pairs is not None:
        chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))[:pairs]]
    first, second = (clip[index.flatten().to(clip.device)] for index in (chosen[:, :-1], chosen[:, 1:]))
    parts = zip(first.split(batch), second.split(batch), strict=True)
    flow = torch.cat([flow_model(a.to(device), b.to(device)).float().cpu() for a, b in parts])
    return flow.view(len(chosen), 2 * flows, *flow.shape[-2:])


def flip(flow: Tensor, right_to_left: Tensor, upside_down: Tensor) -> Tensor:
    """Mirror flows (B, 2n, H, W) where the masks (B,) say so; the mirrored component changes its sign."""
    sign_x = flow.new_tensor((-1, 1)).repeat(flow.shape[1] // 2).view(1, -1, 1, 1)
    flow = torch.where(right_to_left.view(-1, 1, 1, 1), flow.flip(3) * sign_x, flow)
    return torch.where(upside_down.view(-1, 1, 1, 1), flow.flip(2) * -sign_x, flow)


def degrade(flow: Tensor, blur: float, noise: float, generator: torch.Generator) -> Tensor:
    """Blur and noise of random strength, so that the net does not mistake softness or grain for a fake.

    Args:
        flow: (B, 2n, H, W), px.
        blur: largest standard deviation, px of a 128 px frame; drawn from [0, blur] for the batch.
        noise: largest standard deviation, px of a 128 px frame; drawn from [0, noise] for each flow.
    """
    unit = max(flow.shape[-2:]) / 128
    if blur > 0:
        flow = gaussian_blur(flow, max(blur * unit * torch.rand((), generator=generator).item(), 1e-3))
    if noise > 0:
        strength = noise * unit * torch.rand(len(flow), 1, 1, 1, generator=generator)
        flow = flow + (strength * torch.randn(flow.shape, generator=generator)).to(flow)
    return flow
