"""Where in a video's schedule a sampler stands that goes through a part of it.

Wan 2.2 has two experts: one sampler node takes the video from pure noise to some noise level, the next one from there
to the end (KSampler (Advanced) with start_at_step and end_at_step, or Split Sigmas). Each is given its own noise levels
alone. How many steps lie before and after follows from how far along the model's schedule those levels are, at the
pace of the sampler's own steps. Nothing is kept from one sampler to the next: what ComfyUI has in its cache would
change the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Bisections of the schedule: 2^-20 of it is less than any step.
BISECTIONS = 20
# No video has more steps than this; a sampler that barely moves is not the pace of a schedule.
MOST_STEPS = 1000


@dataclass(frozen=True)
class Part:
    """The steps `done`, ..., `done + steps - 1` of a video's `total`."""

    done: int
    steps: int
    total: int

    @property
    def whole(self) -> bool:
        return self.steps == self.total

    def __str__(self) -> str:
        return f"steps {self.done + 1} to {self.done + self.steps} of the video's {self.total}"


def part_of(levels: Sequence[float], continued: bool, percent_to_sigma: Callable[[float], float]) -> Part:
    """Which part of the video's schedule a sampler's noise levels are.

    Args:
        levels: steps + 1 noise levels, falling.
        continued: the sampler adds no noise, so that what it is given must have been noisy before. One that begins
            below the highest noise with noise of its own (denoise, a second pass after an upscale) begins anew.
        percent_to_sigma: of ComfyUI's ModelSampling: noise level at a share of the schedule.
    """
    steps = len(levels) - 1
    begin, end = (_percent(level, percent_to_sigma) for level in (levels[0], levels[-1]))
    pace = steps / max(end - begin, 1e-6)
    done = round(pace * begin) if continued else 0
    after = round(pace * (1 - end)) if levels[-1] > 0 else 0
    if done + steps + after > MOST_STEPS:
        return Part(0, steps, steps)
    return Part(done, steps, done + steps + after)


def _percent(sigma: float, percent_to_sigma: Callable[[float], float]) -> float:
    """The share of the schedule at which its noise level is `sigma`."""
    low, high = 0.0, 1.0
    if sigma >= percent_to_sigma(low):  # percents of 0 and 1 stand for more and less noise than there is
        return low
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if float(percent_to_sigma(middle)) > sigma else (low, middle)
    return (low + high) / 2
