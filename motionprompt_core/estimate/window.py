"""Which steps to correct: found in the estimates themselves, for schedules of any length.

An estimate can be corrected once it shows how the video moves, and the nearer it is to what will be seen, the more of
the correction will be. Motion is a change from frame to frame, and an ideal observer, who knows what to look for, tells
a change d from none in noise of deviation s by (Kay, Fundamentals of Statistical Signal Processing II, ch. 4)

    clarity = |d| / s = |x0_(i+1) - x0_i| / (sqrt(2) sigma / a)

with the norm over a whole frame's latents: larger pictures show their motion at more noise, as they do. That needs the
estimate and its noise level alone, no finished video and no decoder, and steps of any size are asked the same.
"""

from __future__ import annotations

from torch import Tensor

# Met at the steps 13 to 16 of 20 on the demo model. From the first sight of motion (1.4, where an estimate's flow
# agrees with the finished video's by two thirds) the same number of corrections gains less: what is corrected early is
# drawn anew.
CLEAR = 6.0
# Corrections of a pass, evenly spread from there to the last step. More gain hardly more.
MOST = 4
# The last steps are corrected even if motion is not clear there: a video may hardly move, a schedule have few.
CERTAIN = 2


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
        forced: motion was not clear even in the last steps, and they are corrected all the same.
    """

    def __init__(self, num_steps: int):
        self.num_steps = num_steps
        self.corrected: list[int] = []
        self.forced = False
        self._planned: set[int] = set()

    def wants(self, step: int, sigma: float, x0: Tensor) -> bool:
        """Whether to correct the estimate x0 (F, ...) of a step; see `clarity`. Asked once for each step."""
        if not self._planned:
            clear = clarity(x0, sigma) >= CLEAR
            if not clear and step < self.num_steps - CERTAIN:
                return False
            self.forced = not clear
            self._planned = spread(step, self.num_steps - 1)
        if step not in self._planned:
            return False
        self.corrected.append(step)
        return True


def spread(first: int, last: int) -> set[int]:
    """At most `MOST` steps from first to last, both among them, as evenly as it goes."""
    count = min(MOST, last - first + 1)
    return {last - round((last - first) * k / max(1, count - 1)) for k in range(count)}
