"""What making a video costs: operations and the memory alive at once, which are counted, and processor time."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..cost.measure import measure as count


def measure(work: Callable[[], object]) -> dict[str, float]:
    """What `work` takes: "flops", of matrix products, convolutions and attention, the backward pass included; "memory",
    the peak of the tensors alive in it, in bytes, without what was there before (the weights); "cpu_seconds", the
    processor time of doing it once more without counting."""
    cost = count(work)[1]
    start = time.process_time()
    work()
    seconds = time.process_time() - start
    return {"flops": cost.flops, "memory": cost.peak, "cpu_seconds": seconds}
