"""From pictures to the sampler: x0* = x0 + c (E(Y*) - E(Y)) with Y = D(x0), and the factor c for each sampler.

Only the difference passes the encoder, so that what an autoencoder loses is lost from neither. The noise stays as the
model predicted it (manifold-preserving guidance, He et al., ICLR 2024): with x_t = a_t x0 + sigma_t eps the sampler
should arrive at a_s x0* + sigma_s eps. What a sampler does with a changed x0, it does with the noise that it finds by
itself, (x_t - a_t x0*) / sigma_t. For Euler's step from sigma to sigma' only the share 1 - sigma' / sigma of the change
arrives, so the change is handed over 1 / (1 - sigma' / sigma) times as large. Ancestral samplers draw a part of the
noise anew and take over more, LCM all; those of second order ask twice. Those of several steps remember earlier
estimates, draw a line through them and overshoot: what was handed over once has to be held against their memory in the
steps that follow. Instead of a formula for each, `responses` asks the sampler itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..guidance.schedule import StepTracker

# A change this many times as large at most: beyond it the model is shown what no noise could have led to.
MOST = 8.0


@torch.no_grad()
def correct(
    x0: Tensor,
    decode: Callable[[Tensor], Tensor],
    encode: Callable[[Tensor], Tensor],
    improve: Callable[[Tensor], Tensor],
    batch: int = 8,
) -> Tensor:
    """What to add to Tweedie's estimate, E(improve(D(x0))) - E(D(x0)).

    Args:
        x0: clean latents of the whole video, with classifier-free guidance; frames first.
        decode: some latents (N, ...) -> their pictures (N, 3, H, W), nominally in [0, 1]. encode: the reverse.
        improve: pictures -> better pictures, for example `steady`.
        batch: latents at a time. Give their number where an autoencoder compresses time.
    """
    pictures = torch.cat([decode(part) for part in x0.split(batch)])
    better = improve(pictures)
    if better is pictures:
        return torch.zeros_like(x0)
    per_latent = len(pictures) if batch >= len(x0) else batch
    pairs = zip(better.split(per_latent), pictures.split(per_latent), strict=True)
    return torch.cat([encode(new) - encode(old) for new, old in pairs]).to(x0)


def euler_share(sigma: float, following: float, signal: Callable[[float], float] = lambda sigma: 1.0) -> float:
    """The share of a change of x0 that Euler's step from `sigma` to `following` takes over, of what it should be.

    Args:
        signal: a_t of x_t = a_t x0 + sigma_t eps: 1 for k-diffusion's sigmas, 1 - sigma for flow matching.
    """
    # x' = (sigma' / sigma) x + k x0 leads from a x0 + sigma eps to a' x0 + sigma' eps for k = a' - a sigma' / sigma.
    return (signal(following) - signal(sigma) * following / sigma) / signal(following)


def factor(share: float) -> float:
    """How many times as large a change has to be handed over for all of it to arrive, at most `MOST`."""
    return min(MOST, 1 / max(share, 1 / MOST))


@dataclass
class Responses:
    """What a sampler makes of changes of x0.

    Attributes:
        arrives: (num_steps, num_steps); entry j, k is how much of a change at step k is in x when step j is over. All
            evaluations of a step are changed, but of the last step's only the last, which is what will be seen.
        evaluations: of the last step.
    """

    arrives: Tensor
    evaluations: int


def euler_responses(sigmas: Sequence[float], signal: Callable[[float], float] = lambda sigma: 1.0) -> Responses:
    """Those of Euler's sampler, from `euler_share`."""
    shares = [euler_share(sigma, following, signal) for sigma, following in pairwise(sigmas)]
    return Responses(torch.tensor([shares] * len(shares)).tril(), 1)


def responses(
    sample: Callable[[Callable[[Tensor, Tensor], Tensor], Callable[[], None], Tensor], Tensor],
    sigmas: Sequence[float],
    signal: Callable[[float], float] = lambda sigma: 1.0,
    by_count: bool = False,
) -> Responses:
    """Those of any sampler, which is run on a few numbers.

    The model knows nothing but what is in x already, D(x) = x / a. With it a sampler stands still, so whatever becomes
    of a change in one step is what the sampler takes over of it.

    Args:
        sample: runs the sampler's whole schedule: a model, x and sigma -> x0; to be called after each step; the noise x
            (N, 1, 1, 1) -> the result (N, 1, 1, 1). Always with the same random numbers.
        sigmas: the schedule, num_steps + 1 noise levels.
        signal: see `euler_share`.
        by_count: see `StepTracker`.
    """
    count = len(sigmas) - 1

    def run(change: float, evaluations: int) -> tuple[Tensor, int]:
        """What is in x after each step, (num_steps, N), and the evaluations of the last one."""
        tracker, before, made = StepTracker(sigmas, by_count), [], Counter()

        def model(x: Tensor, sigma: Tensor) -> Tensor:
            level = float(sigma.flatten()[0])
            x0 = x / max(signal(level), 1e-3)
            before.extend([x0.flatten().clone()] * len(tracker.observe(level)))
            made[tracker.current] += 1
            if tracker.current < count - 1 or made[count - 1] == evaluations:
                x0[tracker.current] += change
            return x0

        result = sample(model, tracker.step_done, torch.zeros(count, 1, 1, 1)) / max(signal(float(sigmas[-1])), 1e-3)
        return torch.stack([*before[1:], *[result.flatten()] * (count + 1 - max(1, len(before)))]), made[count - 1]

    still, evaluations = run(0.0, 0)
    return Responses((run(1.0, evaluations)[0] - still).tril(), evaluations)


def hand_over(arrives: Tensor, step: int) -> list[float]:
    """How many times a change is to be added to the estimates of each step, so that all of it is in x once `step` is
    over, and neither more nor less after each step that follows.

    Euler's needs it once. A sampler with a memory is given a part of it again, or the opposite, until it has forgotten.
    """
    arrives, handed = arrives.double(), torch.zeros(len(arrives), dtype=torch.float64)
    takes = arrives.diagonal().tolist()
    handed[step] = factor(takes[step])
    arrived = handed[step] * takes[step]
    for j in range(step + 1, len(arrives)):
        if takes[j] > 1 / MOST:
            handed[j] = ((arrived - arrives[j, step:j] @ handed[step:j]) / takes[j]).clamp(-MOST, MOST)
    return handed.tolist()
