"""What changed in a finished video, in numbers: flicker, smoothness, amount of motion, realism, sharpness.

None is enough alone: a frozen or blurred video has perfect temporal scores. So `measure_video` gives them with the
amount of motion and the sharpness, and says when a video does not move. Names and formulas that are VBench's
(Huang et al., CVPR 2024) are marked so; the others are proxies and not comparable with published tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..discriminator.model import FlowDiscriminator
from ..flow.base import FlowModel
from . import faults
from .video import (
    as_video,
    flow_scores,
    frame_changes,
    halfway_errors,
    moves,
    on_source_grid,
    path_changes,
    sampling,
    sharpnesses,
    structure_changes,
    top_speed,
    video_flow,
    warping_errors,
)

# A video whose fastest pixels move less than this share of its shorter side per frame (0.25 px of 256) stands still.
FROZEN_SHARE = 0.25 / 256
BLOCK_PIXELS = 2**23  # of the frames that are measured together


@dataclass(frozen=True)
class TemporalMetrics:
    """Measurements of one video; `video` has the formulas.

    Attributes:
        temporal_flickering: VBench, 0..1, higher is calmer.
        motion_smoothness: proxy, 0..1, higher is smoother.
        dynamic_degree: VBench's formula with this flow model, 1 if the video counts as moving, else 0; None if it is
            shorter than two frames at 8 frames a second.
        flow_magnitude: speed of the fastest 5 % of pixels, px a frame, mean over the pairs.
        warping_error: squared colour error along the flow, 0..1, lower is steadier.
        flow_consistency: share of pixels whose forward and backward flow agree, 0..1, higher is better.
        flow_acceleration: change of the flow along itself, px a frame^2, lower is smoother.
        sharpness: variance of the Laplacian, higher is sharper; a fall means that smoothness was bought with blur.
        discriminator_score: mean phi(f), 0..1, higher is more real; None without a discriminator.
        frozen: nothing moves, so the temporal scores above are no merit.
        flow_model: what measured the motion.
        frames: length of the video.
        flash: proxy, how far the frame that stands out most is off in lightness, L* of 0..100, lower is steadier.
        seam: proxy, the greatest lasting change between two frames, or that at a given frame, by the usual one; 1 is
            none. motion_seam: the same of the motion's turns.
        freeze: longest run of repeated frames (FFmpeg's freezedetect says which are), 0 is none.
        colour_drift: CIE 1976 difference of the mean colour from the first quarter to the last, lower is steadier.
        verdict: which of these five can be noticed, and at which frames, in words.
    """

    temporal_flickering: float
    motion_smoothness: float
    dynamic_degree: float | None
    flow_magnitude: float
    warping_error: float
    flow_consistency: float
    flow_acceleration: float
    sharpness: float
    discriminator_score: float | None
    frozen: bool
    flow_model: str
    frames: int
    flash: float
    seam: float
    motion_seam: float
    freeze: float
    colour_drift: float
    verdict: str

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


@torch.no_grad()
def measure_video(
    video: Tensor | Iterable[Tensor],
    flow_model: FlowModel,
    discriminator: FlowDiscriminator | None = None,
    *,
    fps: float = 8.0,
    gap: int = 1,
    batch: int = 8,
    seam_at: int | None = None,
) -> MeasuredVideo:
    """Measure one video. Each flow is estimated once (forward, backward, and across the frames left out), but for the
    few that two blocks share.

    Args:
        video: (T, 3, H, W) or (T, H, W, 3), RGB in [0, 1], T at least 3; or its parts one by one, where all of it would
            not fit into memory.
        flow_model: measures the motion. A score by the very model that guided the video flatters it: use another too.
        discriminator: its score is added; should have been trained with `flow_model`.
        fps: of the video; the dynamic degree is defined at 8.
        gap: distance in frames of the pairs that the discriminator sees.
        batch: pairs at a time; fewer need less memory.
        seam_at: the frame, counted from 0, at which a second part begins; None looks for the worst.

    Raises:
        ValueError: wrong shape, too few frames, frames too small for the flow model, or no such frame.
    """
    parts = [as_video(video, at_least=3)] if isinstance(video, Tensor) else video
    overlap = max(2, gap * (discriminator.config.flows if discriminator is not None else 1))
    found, length = _Sums(sampling(fps)), 0
    shape: tuple[int, ...] = ()
    for frames, own in _blocks(parts, overlap):
        block = as_video(frames, at_least=1)
        shape, length = block.shape, length + (len(block) if own is None else own)
        _measure_block(block, own, found, flow_model, discriminator, gap, batch)
    if length < 3:
        raise ValueError(f"video: {length} frame(s), expected at least 3: the motion of fewer does not change.")
    if seam_at is not None and not 0 < seam_at < length:
        raise ValueError(
            f"seam_at is {seam_at}, but the video has the frames 0 to {length - 1}, and 0 follows on none."
        )
    return found.result(flow_model, length, min(shape[-2:]), seam_at)


def _blocks(parts: Iterable[Tensor], overlap: int) -> Iterator[tuple[Tensor, int | None]]:
    """Frames that are measured together, and how many of them are not part of the next block (None: it is the last).

    Even numbers, as every other frame is rebuilt from its neighbours.
    """
    waiting: Tensor | None = None
    for part in parts:
        waiting = part if waiting is None else torch.cat((waiting, part))
        own = max(8, min(64, BLOCK_PIXELS // (part.shape[-1] * part.shape[-2]))) // 2 * 2
        while len(waiting) > own + overlap:
            yield waiting[: own + overlap], own
            waiting = waiting[own:]
    if waiting is not None and len(waiting):
        yield waiting, None


@dataclass
class _Sums:
    """What the blocks have given so far; lists have one number for each frame, pair or row."""

    step: int
    changes: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    halfway: list[float] = field(default_factory=list)
    path: list[float] = field(default_factory=list)
    sharp: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    residuals: list[float] = field(default_factory=list)
    colours: list[list[float]] = field(default_factory=list)
    warped: Tensor | None = None
    sampled: Tensor | None = None
    sampled_speeds: list[float] = field(default_factory=list)
    frames: int = 0

    def result(self, flow_model: FlowModel, length: int, side: int, seam_at: int | None) -> MeasuredVideo:
        assert self.warped is not None
        error, seen, all_error, pixels = self.warped.tolist()
        speed = fmean(self.speeds)
        dynamic = None
        speeds = self.speeds if self.step == 1 else self.sampled_speeds
        if speeds:
            dynamic = float(moves(speeds, len(speeds) + 1, side))
        seen_faults = faults.find(self.residuals, self.path, self.changes, self.colours, seam_at)
        drift, frozen = faults.colour_drift(self.colours), speed < FROZEN_SHARE * side
        metrics = TemporalMetrics(
            temporal_flickering=1 - fmean(self.changes),
            motion_smoothness=1 - fmean(self.halfway),
            dynamic_degree=dynamic,
            flow_magnitude=speed,
            warping_error=error / seen if seen else all_error / pixels,
            flow_consistency=seen / pixels,
            flow_acceleration=fmean(self.path) if self.path else 0.0,
            sharpness=fmean(self.sharp),
            discriminator_score=fmean(self.scores) if self.scores else None,
            frozen=frozen,
            flow_model=flow_model.name,
            frames=length,
            **{name: fault.size for name, fault in seen_faults.items()},
            colour_drift=drift,
            verdict=faults.verdict(seen_faults, drift, frozen),
        )
        return MeasuredVideo(metrics, self.changes, self.speeds)


def _measure_block(
    video: Tensor,
    own: int | None,
    found: _Sums,
    flow_model: FlowModel,
    discriminator: FlowDiscriminator | None,
    gap: int,
    batch: int,
) -> None:
    """Adds a block's numbers; `own` as in `_blocks`."""
    found.sharp += sharpnesses(video[:own]).tolist()
    found.colours += faults.frame_colours(video[:own]).tolist()
    if found.step > 1:
        _sample(video[:own], found, flow_model, batch)
    if len(video) < 2:
        return
    raw = video_flow(video, flow_model, batch=batch)
    forward = on_source_grid(raw, flow_model)
    backward = on_source_grid(video_flow(video.flip(0), flow_model, batch=batch), flow_model).flip(0)
    found.changes += frame_changes(video)[:own].tolist()
    found.residuals += structure_changes(video, forward)[:own].tolist()
    found.speeds += top_speed(raw)[:own].tolist()
    found.halfway += halfway_errors(video if own is None else video[: own + 1], flow_model, batch).tolist()
    found.path += path_changes(forward)[:own].tolist()
    pairs = len(raw) if own is None else own
    warped = warping_errors(video[: pairs + 1], forward[:pairs], backward[:pairs])
    found.warped = warped if found.warped is None else found.warped + warped
    if discriminator is not None and len(video) > gap * discriminator.config.flows:
        flow = raw if gap == 1 else video_flow(video, flow_model, gap=gap, batch=batch)
        found.scores += flow_scores(flow, flow_model, discriminator, gap=gap, batch=batch)[:own].tolist()


def _sample(video: Tensor, found: _Sums, flow_model: FlowModel, batch: int) -> None:
    """The speeds for the dynamic degree, which looks at every `step`-th frame."""
    kept = video[-found.frames % found.step :: found.step]
    found.frames += len(video)
    if not len(kept):
        return
    if found.sampled is not None:
        kept = torch.cat((found.sampled, kept))
    if len(kept) > 1:
        found.sampled_speeds += top_speed(video_flow(kept, flow_model, batch=batch)).tolist()
    found.sampled = kept[-1:]
