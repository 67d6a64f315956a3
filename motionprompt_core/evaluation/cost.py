"""What making a video costs, counted rather than timed: operations, and the memory alive at once."""

from __future__ import annotations

from collections.abc import Callable

from ..bench.measure import measure as count


def measure(work: Callable[[], object]) -> dict[str, float]:
    """Floating-point operations of `work` (of matrix products, convolutions and attention, the backward pass included),
    and the peak of the tensors alive in it, in bytes, without what was there before (the weights)."""
    cost = count(work)[1]
    return {"flops": cost.flops, "memory": cost.peak}
