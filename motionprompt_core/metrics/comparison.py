"""The metrics of one or more videos as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .measure import MeasuredVideo

# metric -> what is better (+1 higher, -1 lower, 0 neither), and whose formula it is
METRICS: dict[str, tuple[int, str]] = {
    "temporal_flickering": (1, "VBench"),
    "motion_smoothness": (1, "proxy: own interpolation instead of AMT-S"),
    "subject_consistency": (1, "VBench"),
    "background_consistency": (1, "VBench with CLIP ViT-B/32"),
    "warping_error": (-1, "proxy"),
    "flow_consistency": (1, "proxy"),
    "flow_acceleration": (-1, "proxy"),
    "flash": (-1, "proxy, in L*"),
    "seam": (-1, "proxy, by the usual"),
    "motion_seam": (-1, "proxy, by the usual"),
    "freeze": (-1, "FFmpeg's freezedetect, frames"),
    "colour_drift": (-1, "CIE 1976"),
    "discriminator_score": (1, "proxy"),
    "dynamic_degree": (0, "VBench"),
    "flow_magnitude": (0, "proxy"),
    "sharpness": (0, "proxy"),
}
FROZEN = "NO MOTION: nothing moves, so calm and smooth scores are no merit."


@dataclass
class Clip:
    """One video's measurements under a name.

    Attributes:
        name: for the table. measured: from `measure_video`.
        consistency: subject_consistency and background_consistency, where they were measured.
    """

    name: str
    measured: MeasuredVideo
    consistency: dict[str, float] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """Every metric that was measured."""
        found = {**self.measured.metrics.to_dict(), **self.consistency}
        return {key: float(found[key]) for key in METRICS if found.get(key) is not None}

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **self.measured.metrics.to_dict(), **self.consistency}


def differences(clips: Sequence[Clip]) -> list[dict[str, float]]:
    """Each further clip minus the first, for every metric that both have; 0 for a clip against itself."""
    first = clips[0].values()
    return [{key: value - first[key] for key, value in clip.values().items() if key in first} for clip in clips[1:]]


def to_dict(clips: Sequence[Clip]) -> dict[str, Any]:
    """Everything in numbers, with the origin of each formula."""
    return {
        "videos": [clip.to_dict() for clip in clips],
        "differences": differences(clips),
        "formulas": {key: source(key, clips[0]) for key in METRICS if key in clips[0].values()},
    }


def source(metric: str, clip: Clip) -> str:
    """Whose formula it is; VBench measures motion with RAFT, and a number of another flow model is not its number."""
    text = METRICS[metric][1]
    flow = clip.measured.metrics.flow_model
    if metric == "dynamic_degree":
        return f"VBench's formula, flow of {flow}" + ("" if flow == "raft_large" else ": a proxy")
    return text


def table(clips: Sequence[Clip]) -> str:
    """A text table: a column for each video, its difference to the first, what is better, and whose formula it is."""
    further = [f"{clip.name} - {clips[0].name}" for clip in clips[1:]]
    rows = [["", *(clip.name for clip in clips), *further, "better", "formula"]]
    changes = differences(clips)
    for metric, (sign, _) in METRICS.items():
        values = [clip.values().get(metric) for clip in clips]
        if all(value is None for value in values):
            continue
        cells = ["-" if value is None else f"{value:.4f}" for value in values]
        cells += [f"{change[metric]:+.4f}" if metric in change else "-" for change in changes]
        rows.append([metric, *cells, {1: "higher", -1: "lower", 0: "as wanted"}[sign], source(metric, clips[0])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [f"{clip.name}: {clip.measured.metrics.frames} frames: {clip.measured.metrics.verdict}" for clip in clips]
    notes += [f"{clip.name}: {FROZEN}" for clip in clips if clip.measured.metrics.frozen]
    missing = [key for key in ("subject_consistency", "background_consistency") if key not in clips[0].values()]
    notes += [f"not measured: {', '.join(missing)} (no DINO or CLIP weights)"] if missing else []
    return "\n".join([*lines, "", *notes])


def verdicts(clips: Sequence[Clip]) -> str:
    """A line of words for each clip."""
    return "\n".join(f"{clip.name}: {clip.measured.metrics.verdict}" for clip in clips)
