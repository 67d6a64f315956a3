"""The estimate's way through autoencoder and sampler."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from motionprompt_core.estimate.correct import (
    MOST,
    correct,
    euler_responses,
    euler_share,
    factor,
    hand_over,
    responses,
)
from motionprompt_core.estimate.window import CLEAR, Window, clarity
from motionprompt_core.guidance.schedule import StepTracker

SIGMAS = [14.6, 8.0, 4.2, 2.1, 1.0, 0.4, 0.0]


def halve(latents: Tensor) -> Tensor:
    return latents[:, :3].repeat_interleave(2, 2).repeat_interleave(2, 3) / 2


def double(pictures: Tensor) -> Tensor:
    """Loses detail, as encoders do."""
    return 2 * torch.nn.functional.avg_pool2d(pictures, 2)


def test_only_the_difference_passes_the_encoder() -> None:
    x0 = torch.randn(5, 3, 8, 8)
    same = correct(x0, halve, double, lambda pictures: pictures.clone())
    assert (same == 0).all()
    brighter = correct(x0, halve, double, lambda pictures: pictures + 0.1)
    assert torch.allclose(brighter, torch.full_like(x0, 0.2), atol=1e-6)


def test_small_pieces_give_what_the_whole_does() -> None:
    x0 = torch.randn(5, 3, 8, 8)
    results = [correct(x0, halve, double, lambda y: y.flip(0), batch=batch) for batch in (1, 2, 5, 8)]
    assert all(torch.allclose(results[0], other, atol=1e-6) for other in results[1:])


def test_an_autoencoder_that_compresses_time_is_given_the_whole() -> None:
    def decode(latents: Tensor) -> Tensor:
        return latents.repeat_interleave(4, 0)[3:]

    def encode(pictures: Tensor) -> Tensor:
        return torch.cat((pictures[:1], pictures[1:].unflatten(0, (-1, 4)).mean(1)))

    x0 = torch.randn(3, 3, 4, 4)
    found = correct(x0, decode, encode, lambda y: y + 1, batch=3)
    assert torch.allclose(found, torch.ones_like(x0), atol=1e-6)


def euler(model, done, x):
    for s, following in zip(SIGMAS[:-1], SIGMAS[1:], strict=True):
        x = x + (x - model(x, x.new_tensor([s]))) / s * (following - s)
        done()
    return x


def ancestral(model, done, x):
    noise = torch.Generator().manual_seed(1)
    for s, following in zip(SIGMAS[:-1], SIGMAS[1:], strict=True):
        up = min(following, math.sqrt(following**2 * (s**2 - following**2) / s**2))
        down = math.sqrt(following**2 - up**2)
        x = x + (x - model(x, x.new_tensor([s]))) / s * (down - s) + up * torch.randn(x.shape, generator=noise)
        done()
    return x


def lcm(model, done, x):
    noise = torch.Generator().manual_seed(1)
    for s, following in zip(SIGMAS[:-1], SIGMAS[1:], strict=True):
        x = model(x, x.new_tensor([s])) + following * torch.randn(x.shape, generator=noise)
        done()
    return x


def heun(model, done, x):
    """As in k-diffusion, with its callback between the two evaluations."""
    for s, following in zip(SIGMAS[:-1], SIGMAS[1:], strict=True):
        slope = (x - model(x, x.new_tensor([s]))) / s
        done()
        ahead = x + slope * (following - s)
        if following:
            slope = (slope + (ahead - model(ahead, x.new_tensor([following]))) / following) / 2
        x = x + slope * (following - s)
    return x


def two_steps(model, done, x):
    """DPM++ 2M (Lu et al. 2022)."""
    old, before = None, None
    for s, following in zip(SIGMAS[:-1], SIGMAS[1:], strict=True):
        x0 = model(x, x.new_tensor([s]))
        h = math.log(s / following) if following else math.inf
        used = x0 if old is None or not following else (1 + h / (2 * before)) * x0 - h / (2 * before) * old
        x, old, before = (following / s) * x + (1 - following / s) * used, x0, h
        done()
    return x


SAMPLERS = (euler, ancestral, lcm, heun, two_steps)


def test_what_samplers_take_over_is_found_by_asking_them() -> None:
    steps = [1, 2, 3, 4, 5]
    ratio = [SIGMAS[i + 1] / SIGMAS[i] for i in steps]
    found_in_the_end = {f.__name__: responses(f, SIGMAS).arrives[-1, 1:] for f in SAMPLERS}
    shares = {name: found.tolist() for name, found in found_in_the_end.items()}
    assert shares["euler"] == pytest.approx([1 - r for r in ratio], abs=1e-5)
    assert shares["euler"] == pytest.approx([euler_share(SIGMAS[i], SIGMAS[i + 1]) for i in steps], abs=1e-5)
    assert shares["ancestral"] == pytest.approx([1 - r * r for r in ratio], abs=1e-4)
    assert shares["lcm"] == pytest.approx([1] * 5, abs=1e-4)
    # The evaluation at the end of a step counts to the next one. Both are given the change: at a step's end half of
    # what Euler's would have, with the noise of that level, and at the next one's beginning half of its Euler step.
    assert responses(heun, SIGMAS).evaluations == 2
    assert shares["heun"][-1] == pytest.approx(1, abs=1e-5)  # only what will be seen
    before = [SIGMAS[i] / SIGMAS[i - 1] for i in steps[:-1]]
    expected = [(1 / b - 1) / 2 + (1 - r) / 2 for b, r in zip(before, ratio[:-1], strict=True)]
    assert shares["heun"][:-1] == pytest.approx(expected, rel=0.2)
    # (1 - r) (1 + h / (2 h_before)) at once, and some of what is more than Euler's taken back.
    h = [math.log(SIGMAS[i] / SIGMAS[i + 1]) for i in range(5)]
    for i, found in zip(steps[:-1], shares["two_steps"][:-1], strict=True):
        euler_s = 1 - SIGMAS[i + 1] / SIGMAS[i]
        assert euler_s < found < euler_s * (1 + h[i] / (2 * h[i - 1])) + 1e-5
    assert shares["two_steps"][-1] == pytest.approx(1, abs=1e-5)


def test_flow_matching_keeps_the_noise_as_well() -> None:
    """x = (1 - s) x0 + s eps: what Euler leaves of a change is what the formula says."""
    sigmas = [0.9, 0.7, 0.4, 0.0]

    def sample(model, done, x):
        for s, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            x = x + (x - model(x, x.new_tensor([s]))) / s * (following - s)
            done()
        return x

    found = responses(sample, sigmas, signal=lambda s: 1 - s)
    expected = euler_responses(sigmas, lambda s: 1 - s)
    assert found.evaluations == expected.evaluations
    torch.testing.assert_close(found.arrives, expected.arrives, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_what_is_handed_over_arrives_and_stays(sampler, step: int) -> None:
    """Once only, DPM++ 2M had half as much again after its step and took more than that back in the next."""
    found = responses(sampler, SIGMAS)
    times = hand_over(found.arrives, step)

    def contents(times: list[float]) -> list[float]:
        """What is in x before each step and in the end."""
        tracker, before, made = StepTracker(SIGMAS), [], [0] * 6

        def model(x, sigma):
            before.extend([float(x)] * len(tracker.observe(float(sigma))))
            made[tracker.current] += 1
            changed = tracker.current < 5 or made[5] == found.evaluations
            return x + changed * times[tracker.current]

        result = float(sampler(model, tracker.step_done, torch.zeros(1, 1, 1, 1)))
        return [*before[1:], result]

    after = [new - old for new, old in zip(contents(times), contents([0.0] * 6), strict=True)]
    assert after[:step] == pytest.approx([0.0] * step, abs=1e-4)
    assert after[step:] == pytest.approx([1.0] * (6 - step), abs=1e-3)


def test_a_small_share_is_not_made_up_for_without_bound() -> None:
    assert factor(0.5) == 2 and factor(1.0) == 1
    assert factor(0.01) == factor(0.0) == factor(-1.0) == MOST


def moving_latents(change: float, frames: int = 6) -> Tensor:
    """Latents (F, 4, 8, 8) whose every frame differs from the one before by a vector of this length."""
    direction = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.arange(frames).view(-1, 1, 1, 1) * change * direction / direction.norm()


def test_motion_is_as_clear_as_it_stands_out_of_the_noise() -> None:
    assert clarity(moving_latents(3.0), 1.5) == pytest.approx(3 / (math.sqrt(2) * 1.5), rel=1e-4)
    larger = moving_latents(3.0).repeat(1, 1, 2, 2)  # four times as many pixels of the same
    assert clarity(larger, 1.5) == pytest.approx(2 * clarity(moving_latents(3.0), 1.5), rel=1e-4)


@pytest.mark.parametrize(
    ("num_steps", "expected"),
    [(20, [8, 12, 15, 19]), (8, [4, 5, 6, 7]), (4, [2, 3]), (2, [0, 1]), (1, [0])],
)
def test_the_window_opens_when_motion_is_clear_and_is_never_empty(num_steps: int, expected: list[int]) -> None:
    window = Window(num_steps)
    sigmas = [10 * (1 - step / num_steps) for step in range(num_steps)]
    x0 = moving_latents(CLEAR * math.sqrt(2) * 6.2)  # clear from 6.2 on
    for step, sigma in enumerate(sigmas):
        window.wants(step, sigma, x0)
    assert window.corrected == expected
    assert window.forced == (num_steps <= 2)


def test_a_still_video_is_corrected_at_the_end_and_said_to_be_unclear() -> None:
    window = Window(20)
    for step in range(20):
        window.wants(step, 1.0, torch.zeros(4, 4, 8, 8))
    assert (window.corrected, window.forced) == ([18, 19], True)
