"""Faults that people point at in a finished video: a flash, a seam, a freeze, colours that drift.

Each is a size and the frame where it is; frames are counted from 0, as ComfyUI's image batches are. The units and the
two thresholds named here have sources; how a fault is found is our own (a proxy), tested on made clips.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from math import dist
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

# A CIE 1976 colour difference that is just noticed (Mahy, Van Eycken, Oosterlinck, Color Res. Appl. 19(2), 1994).
NOTICED = 2.3
# A frame that differs less from the one before repeats it: the noise of FFmpeg's filter freezedetect, -60 dB.
REPEATED = 1e-3
# Times the usual change. In 64 rendered clips without a fault the greatest was 1.3 of the picture, 2.5 of the motion.
SEAM = 3.0
STUCK = 2  # repeated frames in a row; one is a clip at half its frame rate
NEAR = 8  # frames on each side that say what is usual
# What is usual is not taken for less than this, so that noise is no seam where nothing else happens.
LEAST_CHANGE = 0.5 / 255  # half a level of an 8-bit video
LEAST_STEP = 0.3  # of the mean colour, an eighth of what is noticed
LEAST_TURN = 0.05  # px a frame^2


class Fault(NamedTuple):
    """How large, and at which frame; None where there is nothing."""

    size: float
    frame: int | None


def frame_colours(video: Tensor) -> Tensor:
    """Mean CIE L*a*b* of each sRGB frame of (T, 3, H, W) in [0, 1], white D65: (T, 3)."""
    curve = ((video.clamp(min=0) + 0.055) / 1.055) ** 2.4  # IEC 61966-2-1
    linear = torch.where(video <= 0.04045, video / 12.92, curve)
    to_xyz = video.new_tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    white = to_xyz.sum(1)
    xyz = torch.einsum("ij,tjhw->tihw", to_xyz / white[:, None], linear)
    root = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-9) ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = root.unbind(1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), 1).mean((2, 3))


def flash(lightness: Sequence[float]) -> Fault:
    """The frame whose mean L* stands out most from the median of itself and its two neighbours on each side.

    Fades and cuts have none. A frame at the very end, which has no neighbour on one side, is not judged.
    """
    found = Fault(0.0, None)
    for frame in range(1, len(lightness) - 1):
        reach = min(2, frame, len(lightness) - 1 - frame)
        size = abs(lightness[frame] - median(lightness[frame - reach : frame + reach + 1]))
        found = max(found, Fault(size, frame), key=lambda fault: fault.size)
    return found


def colour_steps(colours: Sequence[Sequence[float]]) -> list[float]:
    """CIE 1976 difference of each frame's mean colour to the next's, as far as it stays: a flash's is gone at once."""
    step = [dist(a, b) for a, b in pairwise(colours)]
    over_two = [dist(a, b) for a, b in zip(colours, colours[2:], strict=False)]
    return [min(size, *over_two[max(0, t - 1) : t + 1]) if over_two else size for t, size in enumerate(step)]


def seam(changes: Sequence[float], least: float, at: int | None = None, without: Collection[int] = ()) -> Fault:
    """How many times the usual, the median of its neighbourhood, a change is: at frame `at`, else where it is most.

    Args:
        changes: one for each frame from the second on. least: what the usual is not taken for less than.
        without: frames that are not looked at.
    """
    ratios = {}
    for t, change in enumerate(changes):
        around = [*changes[max(0, t - NEAR) : t], *changes[t + 1 : t + 1 + NEAR]]
        ratios[t + 1] = change / max(median(around), least) if around else 1.0
    if at is not None:
        return Fault(ratios.get(at, 1.0), at)
    sizes = {frame: ratio for frame, ratio in ratios.items() if frame not in without}
    return max((Fault(ratio, frame) for frame, ratio in sizes.items()), default=Fault(1.0, None))


def find(
    residuals: Sequence[float],
    turns: Sequence[float],
    changes: Sequence[float],
    colours: Sequence[Sequence[float]],
    seam_at: int | None = None,
) -> dict[str, Fault]:
    """flash, seam, motion_seam and freeze of a video of T frames.

    Args:
        residuals: `structure_changes`, T - 1. turns: `path_changes`, T - 2. changes: `frame_changes`, T - 1.
        colours: `frame_colours`, T. seam_at: see `seam`; that of the motion is the turn into the seam or out of it.
    """
    light = flash([lightness for lightness, *_ in colours])
    # A flash upsets the flow, and so what is measured along it.
    upset = range(light.frame - 1, light.frame + 2) if light.frame and light.size > NOTICED else ()
    looked_at = (None,) if seam_at is None else (seam_at - 1, seam_at)
    return {
        "flash": light,
        "seam": max(
            seam(residuals, LEAST_CHANGE, seam_at, upset), seam(colour_steps(colours), LEAST_STEP, seam_at, upset)
        ),
        "motion_seam": max(seam(turns, LEAST_TURN, at, upset) for at in looked_at),
        "freeze": freeze(changes),
    }


def freeze(changes: Sequence[float]) -> Fault:
    """The longest run of repeated frames, in frames, and where it begins; the same for a video that never moves."""
    found, run = Fault(0.0, None), 0
    for t, change in enumerate(changes):
        run = run + 1 if change < REPEATED else 0
        found = max(found, Fault(float(run), t + 2 - run), key=lambda fault: fault.size)
    return found


def colour_drift(colours: Sequence[Sequence[float]]) -> float:
    """CIE 1976 difference of the median mean colour of the last quarter from that of the first."""
    quarter = max(1, len(colours) // 4)
    ends = [
        [median(channel) for channel in zip(*part, strict=True)] for part in (colours[:quarter], colours[-quarter:])
    ]
    return dist(*ends)


def verdict(faults: Mapping[str, Fault], drift: float, frozen: bool) -> str:
    """One line in words.

    Args:
        faults: flash, seam, motion_seam and freeze, as above. drift: of the colours. frozen: nothing moves at all.
    """
    if frozen:
        return "nothing moves"
    light, cut, turn, stuck = (faults[name] for name in ("flash", "seam", "motion_seam", "freeze"))
    said = []
    if light.size > NOTICED:
        said.append(f"flash at frame {light.frame} (lightness off by {light.size:.1f}, {NOTICED} is noticed)")
    if cut.size > SEAM:
        said.append(f"seam at frame {cut.frame} (the picture changes {cut.size:.1f} times as much as around it)")
    # A flash and a cut upset the flow, too.
    near = [fault.frame for fault, limit in ((light, NOTICED), (cut, SEAM)) if fault.size > limit and fault.frame]
    if turn.size > SEAM and all(abs((turn.frame or 0) - frame) > 2 for frame in near):
        said.append(f"seam in the motion at frame {turn.frame} (it turns {turn.size:.1f} times as much as around it)")
    if stuck.size >= STUCK:
        said.append(f"stands still for {stuck.size:.0f} frames from frame {stuck.frame}")
    if drift > NOTICED:
        said.append(f"colours drift by {drift:.1f} ({NOTICED} is noticed)")
    return "; ".join(said) or "no flash, seam or freeze, and the colours hold"
