"""Which frames the motion is measured between."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .settings import GuidanceSettings

Pair = tuple[int, ...]  # frames (i, j), or evenly spaced (i, j, k, ...) where successive flows are judged together


def draw_pairs(
    num_frames: int, settings: GuidanceSettings, generator: torch.Generator, num_flows: int = 1
) -> list[Pair]:
    """Random pairs (i, j) of frames, i < j, every pair of the allowed distance equally likely.

    Args:
        num_frames: length F of the video, more than `num_flows`.
        generator: on the CPU, so that a seed draws the same pairs on every device.
        num_flows: this many successive flows need frames (i, j, 2j - i, ...).
    """
    if num_frames <= num_flows:
        raise ValueError(
            f"Motion needs at least {num_flows + 1} frames, but the video has {num_frames}. Use a longer latent batch."
        )
    max_gap = settings.max_gap or num_frames - 1
    allowed = [
        tuple(range(i, i + num_flows * gap + 1, gap))
        for i in range(num_frames)
        for gap in range(1, max_gap + 1)
        if i + num_flows * gap < num_frames
    ]
    picks = torch.randint(len(allowed), (settings.pairs,), generator=generator)
    return [allowed[int(pick)] for pick in picks]


def ends(frames: Tensor, pairs: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The frames that flow begins at, and those it ends at, of the pairs' frames in one batch (N, 3, H, W)."""
    clips = frames.unflatten(0, (len(pairs), -1))
    return clips[:, :-1].flatten(0, 1), clips[:, 1:].flatten(0, 1)
