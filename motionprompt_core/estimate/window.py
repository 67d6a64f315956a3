"""Which steps to correct: found in the estimates themselves, for schedules of any length.

An estimate can be corrected once it shows how the video moves, and as long as steps are left in which detail is drawn
anew on what was corrected. Motion is a change from frame to frame, and an ideal observer, who knows what to look for,
tells a change d from none in noise of deviation s by (Kay, Fundamentals of Statistical Signal Processing II, ch. 4)

    clarity = |d| / s = |x0_(i+1) - x0_i| / (sqrt(2) sigma / a)

with the norm over a whole frame's latents: larger pictures show their motion at more noise, as they do. That needs the
estimate and its noise level alone, no finished video and no decoder, and steps of any size are asked the same.
"""

from __future__ import annotations

from torch import Tensor

# On the demo model the estimates' flow then agrees with the finished video's by two thirds (cosine 0.65) with 20 steps,
# and by more with 8 and 4.
CLEAR = 1.4
# Of the schedule, left alone at its end; at least one step.
LAST = 0.15
# Schedules of so many steps and more are corrected at every other step, which costs half and gains nearly as much.
MANY = 12


def clarity(x0: Tensor, sigma: float) -> float:
    """How clearly an estimate (F, ...) shows change from frame to frame, in deviations; the median over frame pairs.

    Args:
        sigma: noise over signal, sigma / a of x = a x0 + sigma eps.
    """
    change = (x0[1:] - x0[:-1]).float().flatten(1).norm(dim=1).median()
    return float(change) / (2**0.5 * max(sigma, 1e-6))


class Window:
    """Decides step by step; one for each pass over a schedule.

    Args:
        num_steps: of the schedule.

    Attributes:
        corrected: the steps that were decided on.
        forced: the last step that could be corrected was, although motion was not clear even there.
    """

    def __init__(self, num_steps: int):
        self.num_steps = num_steps
        self.stop = max(1, num_steps - max(1, round(LAST * num_steps)))
        self.every = 2 if num_steps >= MANY else 1
        self.corrected: list[int] = []
        self.forced = False

    @property
    def possible(self) -> list[int]:
        """All steps that may come to be corrected."""
        return list(range(self.stop))

    def wants(self, step: int, sigma: float, x0: Tensor) -> bool:
        """Whether to correct the estimate x0 (F, ...) of a step; see `clarity`. Asked once for each step."""
        if step >= self.stop or (self.corrected and step < self.corrected[-1] + self.every):
            return False
        if not self.corrected and clarity(x0, sigma) < CLEAR:
            if step < self.stop - 1:
                return False
            self.forced = True
        self.corrected.append(step)
        return True
