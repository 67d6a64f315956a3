"""From pictures to the sampler: x0* = x0 + c (E(Y*) - E(Y)) with Y = D(x0), and the factor c for each sampler.

Only the difference passes the encoder, so that what an autoencoder loses is lost from neither. The noise stays as the
model predicted it (manifold-preserving guidance, He et al., ICLR 2024): with x_t = a_t x0 + sigma_t eps the sampler
should arrive at a_s x0* + sigma_s eps. What a sampler does with a changed x0, it does with the noise that it finds by
itself, (x_t - a_t x0*) / sigma_t. For Euler's step from sigma to sigma' only the share 1 - sigma' / sigma of the change
arrives, so the change is handed over 1 / (1 - sigma' / sigma) times as large. Ancestral samplers draw a part of the
noise anew and take over more, LCM all; those of several steps take over more at once and some of it back in the next,
those of second order ask twice. Instead of a formula for each, `carried` asks the sampler itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def carried(
    sample: Callable[[Callable[[Tensor, Tensor], Tensor], Callable[[], None], Tensor], Tensor],
    sigmas: Sequence[float],
    steps: Sequence[int],
    signal: Callable[[float], float] = lambda sigma: 1.0,
    by_count: bool = False,
) -> list[float]:
    """The share of a change of x0 at each of some steps that a sampler takes over in the end; made with any sampler.

    It is run on a few numbers with a model that knows nothing but what is in x already, D(x) = x / a. With it a sampler
    stands still, so whatever it makes of a change in one step's evaluations is what it takes over of it.

    Args:
        sample: runs the sampler's whole schedule: a model, x and sigma -> x0; to be called after each step; the noise x
            (N, 1, 1, 1) -> the result (N, 1, 1, 1). Always with the same random numbers.
        sigmas: the schedule, num_steps + 1 noise levels.
        steps: to ask for.
        signal: see `euler_share`.
        by_count: see `StepTracker`.
    """

    places = {step: place for place, step in enumerate(steps)}

    def run(change: float) -> Tensor:
        tracker = StepTracker(sigmas, by_count)

        def model(x: Tensor, sigma: Tensor) -> Tensor:
            level = float(sigma.flatten()[0])
            tracker.observe(level)
            x0 = x / max(signal(level), 1e-3)
            if tracker.current in places:
                x0[places[tracker.current]] += change
            return x0

        return sample(model, tracker.step_done, torch.zeros(len(steps), 1, 1, 1))

    return ((run(1.0) - run(0.0)) / max(signal(float(sigmas[-1])), 1e-3)).flatten().tolist()
