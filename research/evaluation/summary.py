"""From lines to a summary: means, paired differences with intervals, costs, and the paper's findings beside ours."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from statistics import fmean, pstdev
from typing import Any

from ..statistics import paired_bootstrap
from .suites import FINDINGS, SUBJECT
from .variants import Variant

# What blending frames cannot buy comes first.
# metric -> +1 if higher is better, -1 if lower is, 0 if it should merely stay
QUALITY = {
    "jitter": -1,
    "pulsation": -1,
    "exposure": -1,
    "coherence": 1,
    "temporal_flickering": 1,
    "motion_smoothness": 1,
    "warping_error": -1,
    "flow_consistency": 1,
    "flow_acceleration": -1,
    "permanence": 1,
    "discriminator_score": 1,
}
KEPT: dict[str, int] = {
    "dynamic_degree": 0,
    "flow_magnitude": 0,
    "sprite_speed": 0,
    "sharpness": 0,
    "colour": 0,
    "ground": 0,
    "shape": 0,
    "direction": 0,
}
METRICS = {**QUALITY, **KEPT}
# What `coherence` is the mean of, each in standard deviations of the plain videos, signed so that more is better; one
# that hardly varies is left out, see `varies`.
COHERENCE = ("temporal_flickering", "motion_smoothness", "warping_error", "permanence")

Table = dict[str, dict[int, dict[str, Any]]]


def by_variant(rows: list[dict[str, Any]]) -> tuple[Table, dict[str, dict[str, float]], list[int]]:
    """Videos by variant and seed, costs by variant, and the seeds that every variant has."""
    videos: Table = {}
    costs = {row["variant"]: row for row in rows if row["seed"] is None}
    for row in rows:
        if row["seed"] is not None:
            videos.setdefault(row["variant"], {})[row["seed"]] = dict(row)
    seeds = sorted(set.intersection(*(set(found) for found in videos.values()))) if videos else []
    return videos, costs, seeds


def add_coherence(videos: Table, seeds: list[int]) -> None:
    """Adds `coherence`: how much calmer and steadier than the plain videos are on average, in their deviations."""
    scales = {}
    for metric in COHERENCE:
        values = [videos["plain"][seed][metric] for seed in seeds]
        scales[metric] = fmean(values), pstdev(values)
    used = [metric for metric in COHERENCE if varies([videos["plain"][seed][metric] for seed in seeds])]
    for found in videos.values():
        for seed in seeds:
            parts = [METRICS[m] * (found[seed][m] - scales[m][0]) / scales[m][1] for m in used]
            found[seed]["coherence"] = fmean(parts) if parts else 0.0


def varies(values: list[float]) -> bool:
    """Whether the values have a spread to measure by: at least a tenth of them differ from the commonest.

    Permanence is 1 in nearly every video. In units of a deviation that one frame of one video makes, the next frame
    that is lost anywhere would outweigh everything else.
    """
    return Counter(values).most_common(1)[0][1] <= 0.9 * len(values)


def difference(videos: Table, seeds: list[int], variant: str, against: str, metric: str) -> dict[str, Any]:
    first, second = ([videos[name][seed][metric] for seed in seeds] for name in (variant, against))
    result = paired_bootstrap(first, second)
    return {"variant": variant, "against": against, "metric": metric, **result._asdict(), "seeds": len(seeds)}


def summarise(rows: list[dict[str, Any]], variants: list[Variant], config: Mapping[str, Any]) -> dict[str, Any]:
    """The summary that `report` draws; only seeds that every variant has count.

    Raises:
        ValueError: there are fewer than two such seeds.
    """
    videos, costs, seeds = by_variant(rows)
    if len(seeds) < 2:
        raise ValueError(
            f"summary: {len(seeds)} seed(s) have a video of every variant, but an interval needs at least 2."
        )
    add_coherence(videos, seeds)
    names = [variant.name for variant in variants]
    pairs = [(name, "plain") for name in names if name != "plain"]
    subject = SUBJECT.get(config["suite"], "motionprompt")
    pairs += [(subject, name) for name in names if subject in names and name not in ("plain", subject)]
    differences = [difference(videos, seeds, a, b, metric) for a, b in pairs for metric in METRICS]
    table = {}
    for variant in variants:
        found = videos[variant.name]
        table[variant.name] = {
            "about": variant.about,
            "reference": variant.reference,
            "means": {metric: fmean(found[seed][metric] for seed in seeds) for metric in METRICS},
            "frozen": sum(bool(found[seed]["frozen"]) for seed in seeds),
            **_cost(variant.name, videos, costs, seeds),
        }
    return {
        "suite": config["suite"],
        "subject": subject,
        "config": dict(config),
        "seeds": len(seeds),
        "first_seed": seeds[0],
        "variants": table,
        "differences": differences,
        "findings": _findings(videos, seeds) if config["suite"] == "paper" else [],
    }


def _cost(variant: str, videos: Table, costs: dict[str, dict[str, float]], seeds: list[int]) -> dict[str, Any]:
    """Ratios to the plain video. Time is the processor's: other programs on the machine do not count."""

    def seconds(name: str) -> float:
        if "cpu_seconds" in costs.get(variant, {}) and "cpu_seconds" in costs.get("plain", {}):
            return costs[name]["cpu_seconds"]
        return sorted(videos[name][seed]["cpu_seconds"] for seed in seeds)[len(seeds) // 2]

    found: dict[str, Any] = {"cpu_seconds": seconds(variant), "time_ratio": seconds(variant) / seconds("plain")}
    if variant in costs and "plain" in costs:
        for key in ("flops", "memory"):
            found[key], found[f"{key}_ratio"] = costs[variant][key], costs[variant][key] / costs["plain"][key]
    return found


def _findings(videos: Table, seeds: list[int]) -> list[dict[str, Any]]:
    found = []
    for finding in FINDINGS:
        if finding.variant in videos and finding.against in videos:
            ours = difference(videos, seeds, finding.variant, finding.against, finding.metric)
            found.append(
                {
                    **ours,
                    "text": finding.text,
                    "sign": finding.sign,
                    "paper": finding.paper,
                    "verdict": verdict(finding.sign, ours["low"], ours["high"]),
                }
            )
    return found


def verdict(sign: int, low: float, high: float) -> str:
    """Whether an interval bears a finding out."""
    if sign == 0:
        return "reproduced" if low <= 0 <= high else "not reproduced"
    if low <= 0 <= high:
        return "undecided"
    return "reproduced" if math.copysign(1, low) == sign else "not reproduced"
