"""Which sampling steps are guided, and how to guide each of them once, whatever the sampler evaluates."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .settings import GuidanceSettings

# Samplers pass a schedule's sigma through logarithms and back, so that it returns with a rounding error.
SIGMA_TOLERANCE = 1e-4


def guided_steps(num_steps: int, settings: GuidanceSettings) -> list[int]:
    """Indices of the guided steps among 0 .. num_steps - 1; step i goes from sigma i to sigma i + 1.

    The window holds the steps i with start * num_steps <= i < stop * num_steps. For 50 steps and the
    default window these are the paper's t = 4..14. Empty if the strength is 0, no tokens are guided or the
    window is too short to hold a step.
    """
    if settings.strength == 0 or settings.guide == "estimate":
        return []
    return steps_between(num_steps, settings.start, settings.stop)[:: settings.every]


def steps_between(num_steps: int, start: float, stop: float) -> list[int]:
    """The steps i of 0 .. num_steps - 1 with start * num_steps <= i < stop * num_steps."""
    first, last = (math.ceil(share * num_steps - 1e-6) for share in (start, stop))
    return list(range(first, min(last, num_steps)))


class StepTracker:
    """Tells, at each model evaluation, whether a new schedule step begins with it.

    Samplers evaluate the model once or several times per step, at sigmas of the schedule, between them, or past
    them. An evaluation belongs to the first step not begun yet once its sigma has come down to that step's, provided
    that the step before has reported itself done (`step_done`, a sampler's callback). A step whose sigma the sampler
    leapt over begins late, at the first evaluation that lies beyond the next sigma too.

    Args:
        sigmas: the whole schedule, num_steps + 1 noise levels, falling.
        by_count: count evaluations instead, for samplers that make exactly one per step but at sigmas of their own.
    """

    def __init__(self, sigmas: Sequence[float], by_count: bool = False):
        self.sigmas = [float(s) for s in sigmas]
        self.by_count = by_count
        self.current = -1
        self.done = 0

    @property
    def num_steps(self) -> int:
        return len(self.sigmas) - 1

    def step_done(self) -> None:
        """The sampler has reported one more step."""
        self.done += 1

    def observe(self, sigma: float) -> range:
        """Steps that begin with an evaluation at noise level `sigma`: none, one, or several if the sampler leapt."""
        before = self.current
        while self.current + 1 < self.num_steps and self._begins(self.current + 1, sigma, first=self.current == before):
            self.current += 1
        return range(before + 1, self.current + 1)

    def _begins(self, step: int, sigma: float, first: bool) -> bool:
        if self.by_count:
            return first
        if step == 0:
            return True
        if step + 1 < self.num_steps and self._reached(step + 1, sigma):
            return True
        return first and self._reached(step, sigma) and self.done >= step

    def _reached(self, step: int, sigma: float) -> bool:
        return sigma <= self.sigmas[step] * (1 + SIGMA_TOLERANCE)
