"""Is the difference real? Paired comparisons with intervals; pairs share prompt and seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap


class PairedDifference(NamedTuple):
    """Mean of a - b over the pairs, with its 95 % bootstrap interval; real if the interval leaves out 0."""

    mean: float
    low: float
    high: float


def paired_bootstrap(a: Sequence[float], b: Sequence[float], n: int = 10_000, seed: int = 0) -> PairedDifference:
    """Percentile bootstrap of the mean paired difference (Efron and Tibshirani 1993, ch. 13).

    Args:
        a, b: one number a pair, same order; a is the treatment, b the control.
        n: resamplings of the pairs.
        seed: of the resampling; the same seed gives the same interval.

    Raises:
        ValueError: different lengths, fewer than two pairs, or numbers that are not finite.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2:
        raise ValueError(
            f"paired bootstrap: a and b have shapes {first.shape} and {second.shape}, expected two lists of one "
            "length, at least 2 pairs."
        )
    difference = first - second
    if not np.isfinite(difference).all():
        bad = np.flatnonzero(~np.isfinite(difference)).tolist()
        raise ValueError(f"paired bootstrap: pairs {bad} are not finite. Leave them out of both lists, and say so.")
    # In parts: one (n, pairs) draw of thousands of pairs would fill the memory.
    found = bootstrap(
        (difference,),
        np.mean,
        n_resamples=n,
        batch=max(1, 10**6 // len(difference)),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = found.confidence_interval
    return PairedDifference(float(difference.mean()), float(low), float(high))


def bootstrap_auroc(real: Sequence[float], fake: Sequence[float], n: int = 2_000, seed: int = 0) -> dict[str, float]:
    """Probability that a real score is above a fake one, ties counting half, with its 95 % bootstrap interval.

    Args:
        real, fake: a score for each clip. n: resamplings, of either side by itself.

    Returns:
        auroc, low, high.

    Raises:
        ValueError: a side is empty or has numbers that are not finite.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (real, fake)]
    if any(side.ndim != 1 or not len(side) or not np.isfinite(side).all() for side in sides):
        raise ValueError("AUROC: expected two lists of finite scores, neither empty.")
    above = np.sign(sides[0][:, None] - sides[1][None]) / 2 + 0.5
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(n):
        rows, columns = (generator.integers(length, size=length) for length in above.shape)
        means.append(above[rows][:, columns].mean())
    low, high = np.percentile(means, (2.5, 97.5))
    return {"auroc": float(above.mean()), "low": float(low), "high": float(high)}


def grouped_bootstrap_auroc(
    real: Sequence[float],
    fake: Sequence[float],
    groups: tuple[Sequence[str], Sequence[str]],
    n: int = 2_000,
    seed: int = 0,
) -> dict[str, float]:
    """`bootstrap_auroc` whose interval resamples groups, e.g. sequences of which several clips on both sides are made:
    clips of one sequence are alike, and an interval over clips is too narrow.

    Args:
        real, fake: a score for each clip. groups: the group of each of them. n: resamplings of the groups.

    Returns:
        auroc, low, high.

    Raises:
        ValueError: as `bootstrap_auroc`, or the groups are not those of the scores, or a group lacks a side.
    """
    found = bootstrap_auroc(real, fake, n=1)
    names = sorted(set(groups[0]))
    if [len(side) for side in groups] != [len(real), len(fake)] or names != sorted(set(groups[1])):
        raise ValueError("AUROC by group: expected a group for each score, and each group on both sides.")
    number = {name: k for k, name in enumerate(names)}
    rows, columns = (np.asarray([number[name] for name in side]) for side in groups)
    above = np.sign(np.asarray(real, dtype=np.float64)[:, None] - np.asarray(fake, dtype=np.float64)[None]) / 2 + 0.5
    sums = np.zeros((len(names), len(names)))
    np.add.at(sums, (rows[:, None], columns[None]), above)
    counts = np.bincount(rows)[:, None] * np.bincount(columns)[None]
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(n):
        times = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names)).astype(np.float64)
        means.append((times @ sums @ times) / (times @ counts @ times))
    low, high = np.percentile(means, (2.5, 97.5))
    return {"auroc": found["auroc"], "low": float(low), "high": float(high)}
