"""Which steps are guided, and that each of them is, once, however a sampler evaluates."""

from __future__ import annotations

import pytest

from motionprompt_core.guidance.schedule import StepTracker, guided_steps
from motionprompt_core.guidance.settings import GuidanceSettings

SIGMAS = [14.6, 8.0, 4.0, 2.0, 1.0, 0.0]


def test_the_papers_window():
    assert guided_steps(50, GuidanceSettings()) == list(range(4, 15))


@pytest.mark.parametrize("num_steps", [1, 2, 7, 20, 30, 1000])
def test_the_window_keeps_its_share_of_any_schedule(num_steps):
    steps = guided_steps(num_steps, GuidanceSettings(start=0.2, stop=0.6))
    assert all(0.2 * num_steps - 1e-6 <= step < 0.6 * num_steps for step in steps)
    assert abs(len(steps) - 0.4 * num_steps) < 1


def test_whole_schedule_every_third():
    assert guided_steps(8, GuidanceSettings(start=0, stop=1, every=3)) == [0, 3, 6]


@pytest.mark.parametrize("off", [{"strength": 0}, {"start": 0.3, "stop": 0.3}])
def test_nothing_is_guided_when_switched_off(off):
    assert guided_steps(50, GuidanceSettings(**off)) == []


def drive(tracker, evaluations):
    """Steps that began at each evaluation; a None in the list is the sampler's callback."""
    began = []
    for sigma in evaluations:
        if sigma is None:
            tracker.step_done()
        else:
            began.append(list(tracker.observe(sigma)))
    return began


def test_one_evaluation_per_step():
    evaluations = [value for sigma in SIGMAS[:-1] for value in (sigma, None)]
    assert drive(StepTracker(SIGMAS), evaluations) == [[0], [1], [2], [3], [4]]


def test_second_order_between_the_sigmas():
    evaluations = [14.6, None, 10.8, 8.0, None, 5.7, 4.0, None, 2.8, 2.0, None, 1.4, 1.0, None]
    assert drive(StepTracker(SIGMAS), evaluations) == [[0], [], [1], [], [2], [], [3], [], [4]]


def test_heun_meets_the_next_sigma_within_a_step():
    evaluations = [14.6, None, 8.0, 8.0, None, 4.0, 4.0, None, 2.0, 2.0, None, 1.0, 1.0, None]
    began = drive(StepTracker(SIGMAS), evaluations)
    assert sorted(step for steps in began for step in steps) == [0, 1, 2, 3, 4]
    assert all(len(steps) <= 1 for steps in began)


def test_looking_two_sigmas_ahead_does_not_begin_that_step():
    # heunpp2 looks at sigma i + 2 within step i.
    assert drive(StepTracker(SIGMAS), [14.6, None, 8.0, 4.0, 8.0, None, 4.0]) == [[0], [1], [], [], [2]]


def test_rounding_of_sigmas_does_not_matter():
    assert drive(StepTracker(SIGMAS), [14.6, None, 8.0 * (1 + 1e-6), None, 4.0 * (1 - 1e-6)]) == [[0], [1], [2]]


def test_leapt_over_steps_begin_late():
    assert drive(StepTracker(SIGMAS), [14.6, None, 1.9, None, 1.0]) == [[0], [1, 2], [3]]


def test_counting_evaluations():
    assert drive(StepTracker(SIGMAS, by_count=True), [14.6, 13.0, 0.9, 0.5, 0.1]) == [[0], [1], [2], [3], [4]]
