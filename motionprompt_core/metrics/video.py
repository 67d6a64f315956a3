"""What changed in a finished video, in numbers: flicker, smoothness, amount of motion, realism, sharpness.

None is enough alone: a frozen or blurred video has perfect temporal scores. So `evaluate_video` gives them with the
amount of motion and the sharpness, and says when a video does not move. Names and formulas that are VBench's
(Huang et al., CVPR 2024) are marked so; the others are proxies and not comparable with published tables.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..discriminator.model import FlowDiscriminator, in_a_row
from ..flow.base import FlowModel
from ..media.ops import laplacian, warp

# A video whose fastest pixels move less than this share of its shorter side per frame (0.25 px of 256) stands still.
FROZEN_SHARE = 0.25 / 256


@dataclass(frozen=True)
class TemporalMetrics:
    """Measurements of one video; see the functions of the same names.

    Attributes:
        temporal_flickering: VBench, 0..1, higher is calmer.
        motion_smoothness: proxy, 0..1, higher is smoother.
        dynamic_degree: VBench's formula with this flow model, 1 if the video counts as moving, else 0.
        flow_magnitude: speed of the fastest 5 % of pixels, px a frame, mean over the pairs.
        warping_error: squared colour error along the flow, 0..1, lower is steadier.
        flow_consistency: share of pixels whose forward and backward flow agree, 0..1, higher is better.
        flow_acceleration: change of the flow along itself, px a frame^2, lower is smoother.
        sharpness: variance of the Laplacian, higher is sharper; a fall means that smoothness was bought with blur.
        discriminator_score: mean phi(f), 0..1, higher is more real; None without a discriminator.
        frozen: nothing moves, so the temporal scores above are no merit.
        flow_model: what measured the motion.
        frames: length of the video.
    """

    temporal_flickering: float
    motion_smoothness: float
    dynamic_degree: float
    flow_magnitude: float
    warping_error: float
    flow_consistency: float
    flow_acceleration: float
    sharpness: float
    discriminator_score: float | None
    frozen: bool
    flow_model: str
    frames: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class MeasuredVideo(NamedTuple):
    """The metrics of one video, and how two of them run along it.

    Attributes:
        metrics: the numbers.
        change: mean absolute difference of each frame to the next, (T - 1,), 0..1; temporal flickering is 1 - its mean.
        speed: speed of the fastest 5 % of pixels from each frame to the next, (T - 1,), px a frame.
    """

    metrics: TemporalMetrics
    change: list[float]
    speed: list[float]


def evaluate_video(
    frames: Tensor, flow_model: FlowModel, discriminator: FlowDiscriminator | None = None, **options: Any
) -> TemporalMetrics:
    """The metrics of one video; see `measure_video`."""
    return measure_video(frames, flow_model, discriminator, **options).metrics


def measure_video(
    frames: Tensor,
    flow_model: FlowModel,
    discriminator: FlowDiscriminator | None = None,
    *,
    fps: float = 8.0,
    gap: int = 1,
    batch: int = 8,
) -> MeasuredVideo:
    """Measure one video. Each flow is estimated once: forward, backward, and across the frames left out.

    Args:
        frames: (T, 3, H, W) or (T, H, W, 3), RGB in [0, 1], T at least 3.
        flow_model: measures the motion. A score by the very model that guided the video flatters it: use another too.
        discriminator: its score is added; should have been trained with `flow_model`.
        fps: of the video; `dynamic_degree` is defined at 8.
        gap: distance in frames of the pairs that the discriminator sees.
        batch: pairs at a time; fewer need less memory.

    Raises:
        ValueError: wrong shape, too few frames, or frames too small for the flow model.
    """
    video = as_video(frames, at_least=3)
    raw = video_flow(video, flow_model, batch=batch)
    forward = on_source_grid(raw, flow_model)
    backward = on_source_grid(video_flow(video.flip(0), flow_model, batch=batch), flow_model).flip(0)
    speeds, changes = top_speed(raw), frame_changes(video)
    speed = speeds.mean().item()
    error, consistency = warping_error(video, forward, backward)
    score = None
    if discriminator is not None:
        pairs = raw if gap == 1 else video_flow(video, flow_model, gap=gap, batch=batch)
        score = flow_score(pairs, flow_model, discriminator, gap=gap, batch=batch)
    metrics = TemporalMetrics(
        temporal_flickering=1 - changes.mean().item(),
        motion_smoothness=motion_smoothness(video, flow_model, batch=batch),
        dynamic_degree=float(
            _moves(raw, video) if _sampling(fps) == 1 else dynamic_degree(video, flow_model, fps=fps, batch=batch)
        ),
        flow_magnitude=speed,
        warping_error=error,
        flow_consistency=consistency,
        flow_acceleration=flow_acceleration(forward),
        sharpness=sharpness(video),
        discriminator_score=score,
        frozen=speed < FROZEN_SHARE * min(video.shape[-2:]),
        flow_model=flow_model.name,
        frames=len(video),
    )
    return MeasuredVideo(metrics, changes.tolist(), speeds.tolist())


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


def temporal_flickering(frames: Tensor) -> float:
    """VBench's temporal flickering: (255 - mean absolute difference of neighbouring 8-bit frames) / 255.

    1 for a frozen video. VBench means it for static scenes; any motion lowers it.
    """
    return 1 - frame_changes(as_video(frames)).mean().item()


def frame_changes(video: Tensor) -> Tensor:
    """Mean absolute difference of each 8-bit frame of (T, 3, H, W) to the next, / 255: (T - 1,)."""
    pixels = (video * 255).round()
    return (pixels[1:] - pixels[:-1]).abs().flatten(1).mean(1) / 255


@torch.no_grad()
def motion_smoothness(frames: Tensor, flow_model: FlowModel, batch: int = 8) -> float:
    """Proxy of VBench's motion smoothness: drop every other frame, rebuild it from its neighbours, 1 - mean error.

    VBench rebuilds with the AMT-S network; this warps both neighbours half-way along their flow and averages.
    """
    video = as_video(frames, at_least=3)
    kept, dropped = video[0::2], video[1:-1:2]
    before, after = kept[: len(dropped)], kept[1 : len(dropped) + 1]
    errors = []
    for i in range(0, len(dropped), batch):
        a, b = before[i : i + batch], after[i : i + batch]
        flow = flow_model(a, b)
        if flow_model.grid == "source":
            flow = _move_grid(flow, -0.5)
        rebuilt = (warp(a, -flow / 2) + warp(b, flow / 2)) / 2
        errors.append((rebuilt - dropped[i : i + batch]).abs().mean((1, 2, 3)))
    return 1 - torch.cat(errors).mean().item()


def top_speed(flow: Tensor) -> Tensor:
    """Mean magnitude of the fastest 5 % of pixels of each flow (B, 2, H, W) -> (B,), px. Part of VBench's formula."""
    speed = flow.norm(dim=1).flatten(1)
    return speed.topk(max(1, int(speed.shape[1] * 0.05)), dim=1).values.mean(1)


def dynamic_degree(frames: Tensor, flow_model: FlowModel, fps: float = 8.0, batch: int = 8) -> bool:
    """VBench's dynamic degree of one video: does it move? The score of a set is the share of videos that do.

    At about 8 frames a second, the fastest 5 % of pixels must exceed 6 px per 256 px of the shorter side in at least
    4 pairs per 16 frames. VBench measures with RAFT (20 updates, Things weights); the flow model given here may differ.
    """
    video = as_video(as_video(frames)[:: _sampling(fps)])
    return _moves(video_flow(video, flow_model, batch=batch), video)


def _sampling(fps: float) -> int:
    return max(1, round(fps / 8))


def _moves(flow: Tensor, video: Tensor) -> bool:
    needed = max(1, round(4 * len(video) / 16))  # VBench's count is 0 for two frames, which would always move
    return int((top_speed(flow) > 6.0 * min(video.shape[-2:]) / 256).sum()) >= needed


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    """Which pixels are seen in both frames: the two flows (B, 2, H, W; px) cancel and stay inside -> (B, 1, H, W) bool.

    The test of Sundaram et al. (ECCV 2010): |f + b|^2 < 0.01 (|f|^2 + |b|^2) + 0.5.
    """
    returned = warp(backward, forward)
    squared = forward.square().sum(1, keepdim=True) + returned.square().sum(1, keepdim=True)
    agree = (forward + returned).square().sum(1, keepdim=True) < 0.01 * squared + 0.5
    height, width = forward.shape[-2:]
    x = torch.arange(width, device=forward.device) + forward[:, :1]
    y = torch.arange(height, device=forward.device).unsqueeze(1) + forward[:, 1:]
    return agree & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def warping_error(frames: Tensor, forward: Tensor, backward: Tensor) -> tuple[float, float]:
    """Squared colour difference along the flow, over the pixels seen in both frames (Lai et al., ECCV 2018).

    Args:
        frames: the video, T frames.
        forward, backward: (T - 1, 2, H, W) px, on the pixels of their own first frame: t -> t + 1 and t + 1 -> t.

    Returns:
        The error, and the share of pixels whose flows agree. Where they agree nowhere, all pixels count.
    """
    video = as_video(frames)
    mask = visible(forward, backward)
    difference = (warp(video[1:], forward) - video[:-1]).square().mean(1, keepdim=True)
    error = (difference * mask).sum() / mask.sum() if mask.any() else difference.mean()
    return error.item(), mask.float().mean().item()


def flow_acceleration(flow: Tensor) -> float:
    """Mean change of velocity along the motion, |f_{t+1}(x + f_t(x)) - f_t(x)|, px a frame^2; 0 for steady motion."""
    return (warp(flow[1:], flow[:-1]) - flow[:-1]).norm(dim=1).mean().item() if len(flow) > 1 else 0.0


def sharpness(frames: Tensor) -> float:
    """Variance of the Laplacian of the 8-bit luma, mean over the frames: the usual measure of focus."""
    return laplacian(as_video(frames, at_least=1) * 255).flatten(1).var(1).mean().item()


def discriminator_score(
    frames: Tensor,
    flow_model: FlowModel,
    discriminator: FlowDiscriminator,
    gap: int = 1,
    batch: int = 8,
) -> float:
    """Mean phi(f), the discriminator's probability that the motion is real, over all pairs `gap` frames apart."""
    flow = video_flow(as_video(frames), flow_model, gap=gap, batch=batch)
    return flow_score(flow, flow_model, discriminator, gap=gap, batch=batch)


@torch.no_grad()
def flow_score(
    flow: Tensor,
    flow_model: FlowModel,
    discriminator: FlowDiscriminator,
    gap: int = 1,
    batch: int = 8,
) -> float:
    """Mean phi(f) of all flows (T, 2, H, W; px) between frames `gap` apart, as `flow_model` gives them, which is how
    training saw them.

    Raises:
        ValueError: there are fewer than the discriminator judges together.
    """
    if discriminator.config.flow_model != flow_model.name:
        warnings.warn(
            f"the discriminator was trained with {discriminator.config.flow_model} and is shown the flow of "
            f"{flow_model.name}: its score means less.",
            stacklevel=3,
        )
    rows = in_a_row(flow, discriminator.config.flows, gap)
    return torch.cat([discriminator(part) for part in rows.split(batch)]).sigmoid().mean().item()
