"""What is measured in a finished video, for each frame or pair of frames; `measure` has it together. Marks as there."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ..discriminator.features import successive_flows
from ..discriminator.model import FlowDiscriminator
from ..flow.base import FlowModel
from ..media.ops import laplacian, warp


def as_video(frames: Tensor, at_least: int = 2) -> Tensor:
    """(T, 3, H, W) or (T, H, W, 3) in [0, 1] -> (T, 3, H, W) float32 within [0, 1]."""
    if frames.ndim != 4 or 3 not in (frames.shape[1], frames.shape[-1]) or not frames.is_floating_point():
        raise ValueError(
            f"video: expected floating-point frames (T, 3, H, W) or (T, H, W, 3) in [0, 1], got {tuple(frames.shape)} "
            f"{frames.dtype}."
        )
    if len(frames) < at_least:
        raise ValueError(f"video: {len(frames)} frame(s), expected at least {at_least}: one frame has no motion.")
    video = frames if frames.shape[1] == 3 else frames.movedim(-1, 1)
    if not torch.isfinite(video).all():
        raise ValueError("video: the frames contain NaN or infinite values. The sampling or decoding failed.")
    return video.detach().float().clamp(0, 1)


@torch.no_grad()
def video_flow(video: Tensor, flow_model: FlowModel, gap: int = 1, batch: int = 8) -> Tensor:
    """Flow from every frame of (T, 3, H, W) to the one `gap` later, as the model gives it: (T - gap, 2, H, W), px."""
    if not 1 <= gap < len(video):
        raise ValueError(f"video: gap is {gap}, expected 1 to {len(video) - 1} for {len(video)} frames.")
    first, second = video[:-gap], video[gap:]
    return torch.cat([flow_model(first[i : i + batch], second[i : i + batch]) for i in range(0, len(first), batch)])


def on_source_grid(flow: Tensor, flow_model: FlowModel) -> Tensor:
    """The flow at the pixels of the earlier frame, from which it can be warped; changes only `grid` "middle" models."""
    return _move_grid(flow, 0.5) if flow_model.grid == "middle" else flow


def _move_grid(flow: Tensor, share: float, iterations: int = 4) -> Tensor:
    """Re-address the flow: the result g has g(x) = flow(x + share * g(x)), found as a fixed point."""
    moved = flow
    for _ in range(iterations):
        moved = warp(flow, share * moved)
    return moved


def frame_changes(video: Tensor) -> Tensor:
    """Mean absolute difference of each 8-bit frame of (T, 3, H, W) to the next, / 255: (T - 1,).

    VBench's temporal flickering is 1 - its mean: 1 for a frozen video. VBench means it for static scenes; any motion
    lowers it.
    """
    pixels = (video * 255).round()
    return (pixels[1:] - pixels[:-1]).abs().flatten(1).mean(1) / 255


def structure_changes(video: Tensor, flow: Tensor) -> Tensor:
    """What the flow (T - 1, 2, H, W) leaves unexplained of each change, but for the whole frame's colour: (T - 1,)."""
    seen = stays_inside(flow).to(video.dtype)
    share = seen.mean((2, 3), keepdim=True).clamp(min=1 / seen[0].numel())
    left = (warp(video[1:], flow) - video[:-1]) * seen
    left = left - seen * left.mean((2, 3), keepdim=True) / share
    return (left.abs() / share).flatten(1).mean(1)


@torch.no_grad()
def halfway_errors(video: Tensor, flow_model: FlowModel, batch: int = 8) -> Tensor:
    """Mean error of every other frame of (T, 3, H, W) rebuilt from its neighbours: ((T - 1) // 2,).

    Motion smoothness is 1 - its mean. VBench rebuilds with the AMT-S network; this warps both neighbours half-way along
    their flow and averages.
    """
    kept, dropped = video[0::2], video[1:-1:2]
    before, after = kept[: len(dropped)], kept[1 : len(dropped) + 1]
    errors = [video.new_empty(0)]
    for i in range(0, len(dropped), batch):
        a, b = before[i : i + batch], after[i : i + batch]
        flow = flow_model(a, b)
        if flow_model.grid == "source":
            flow = _move_grid(flow, -0.5)
        rebuilt = (warp(a, -flow / 2) + warp(b, flow / 2)) / 2
        errors.append((rebuilt - dropped[i : i + batch]).abs().mean((1, 2, 3)))
    return torch.cat(errors)


def top_speed(flow: Tensor) -> Tensor:
    """Mean magnitude of the fastest 5 % of pixels of each flow (B, 2, H, W) -> (B,), px. Part of VBench's formula."""
    speed = flow.norm(dim=1).flatten(1)
    return speed.topk(max(1, int(speed.shape[1] * 0.05)), dim=1).values.mean(1)


def sampling(fps: float) -> int:
    """Every which frame the dynamic degree, see `moves`, looks at: at about 8 frames a second."""
    return max(1, round(fps / 8))


def moves(speeds: list[float], length: int, side: int) -> bool:
    """VBench's dynamic degree of one video, whether it moves; that of a set is the share of videos that do.

    The fastest 5 % of pixels must exceed 6 px per 256 px of the shorter `side` in at least 4 pairs per 16 frames.
    VBench measures with RAFT (20 updates, Things weights); the flow model given here may differ.

    Args:
        speeds: `top_speed` of each pair, px, of `length` frames.
    """
    needed = max(1, round(4 * length / 16))  # VBench's count is 0 for two frames, which would always move
    return sum(speed > 6.0 * side / 256 for speed in speeds) >= needed


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    """Which pixels are seen in both frames: the two flows (B, 2, H, W; px) cancel and stay inside -> (B, 1, H, W) bool.

    The test of Sundaram et al. (ECCV 2010): |f + b|^2 < 0.01 (|f|^2 + |b|^2) + 0.5.
    """
    returned = warp(backward, forward)
    squared = forward.square().sum(1, keepdim=True) + returned.square().sum(1, keepdim=True)
    agree = (forward + returned).square().sum(1, keepdim=True) < 0.01 * squared + 0.5
    return agree & stays_inside(forward)


def stays_inside(flow: Tensor) -> Tensor:
    """Which pixels a flow (B, 2, H, W; px) leads to another of the frame: (B, 1, H, W) bool."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device) + flow[:, :1]
    y = torch.arange(height, device=flow.device).unsqueeze(1) + flow[:, 1:]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def warping_errors(video: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """Squared colour differences along the flow (Lai et al., ECCV 2018), as sums: over the pixels seen in both frames,
    how many these are, over all pixels, how many these are; float64 (4,).

    Args:
        video: (T, 3, H, W).
        forward, backward: (T - 1, 2, H, W) px, on the pixels of their own first frame: t -> t + 1 and t + 1 -> t.
    """
    mask = visible(forward, backward)
    difference = (warp(video[1:], forward) - video[:-1]).square().mean(1, keepdim=True).double()
    total = torch.tensor(difference.numel(), device=video.device)
    return torch.stack([(difference * mask).sum(), mask.sum().double(), difference.sum(), total.double()]).cpu()


def path_changes(flow: Tensor) -> Tensor:
    """Mean change of velocity along the motion, |f_{t+1}(x + f_t(x)) - f_t(x)|, of flows (T, 2, H, W): (T - 1,), px a
    frame^2; 0 for steady motion."""
    return (warp(flow[1:], flow[:-1]) - flow[:-1]).norm(dim=1).flatten(1).mean(1)


def sharpnesses(video: Tensor) -> Tensor:
    """Variance of the Laplacian of the 8-bit luma of each frame of (T, 3, H, W), the usual measure of focus: (T,)."""
    return laplacian(video * 255).flatten(1).var(1)


@torch.no_grad()
def flow_scores(
    flow: Tensor, flow_model: FlowModel, discriminator: FlowDiscriminator, gap: int = 1, batch: int = 8
) -> Tensor:
    """phi(f) of all rows of flows (T, 2, H, W; px) between frames `gap` apart, as `flow_model` gives them, which is how
    training saw them; one number for each first flow.

    Raises:
        ValueError: there are fewer than the discriminator judges together.
    """
    if discriminator.config.flow_model != flow_model.name:
        warnings.warn(
            f"the discriminator was trained with {discriminator.config.flow_model} and is shown the flow of "
            f"{flow_model.name}: its score means less.",
            stacklevel=3,
        )
    rows = successive_flows(flow, discriminator.num_flows, gap)
    return torch.cat([discriminator(part) for part in rows.split(batch)]).sigmoid()
