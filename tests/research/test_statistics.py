"""The paired bootstrap: right in size and direction, honest when there is nothing, repeatable."""

from __future__ import annotations

import numpy as np
import pytest

from research.statistics import bootstrap_auroc, paired_bootstrap


def test_a_real_difference_is_found_in_spite_of_a_larger_spread_between_seeds():
    generator = np.random.default_rng(0)
    seeds = generator.normal(0, 5, 32)
    difference = paired_bootstrap(seeds + 1 + generator.normal(0, 0.5, 32), seeds, n=2000)
    assert difference.low < 1 < difference.high
    assert difference.low > 0.5
    assert difference.mean == pytest.approx(1, abs=0.3)


def test_interval_agrees_with_the_normal_approximation():
    difference = np.random.default_rng(1).normal(0.3, 2, 400)
    result = paired_bootstrap(difference, np.zeros(400), n=4000)
    half = 1.96 * difference.std(ddof=1) / 20
    assert (result.low, result.high) == pytest.approx((difference.mean() - half, difference.mean() + half), abs=0.03)


def test_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        result = paired_bootstrap(generator.normal(0, 1, 40), np.zeros(40), n=300, seed=seed)
        hits += result.low <= 0 <= result.high
    assert 0.88 <= hits / 200 <= 0.99


def test_order_gives_the_sign_and_the_seed_the_interval():
    a, b = [1.0, 2.0, 4.0, 3.0], [0.5, 2.5, 3.0, 1.0]
    there, back = paired_bootstrap(a, b, seed=3), paired_bootstrap(b, a, seed=3)
    assert there.mean == -back.mean == pytest.approx(0.75)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert paired_bootstrap(a, b, seed=3) == there


def test_equal_lists_differ_by_exactly_nothing():
    assert paired_bootstrap([1.0, 2.0], [1.0, 2.0]) == (0, 0, 0)


def test_unusable_input_is_refused():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\), expected two lists of one length"):
        paired_bootstrap([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="at least 2 pairs"):
        paired_bootstrap([1], [1])
    with pytest.raises(ValueError, match=r"pairs \[1\] are not finite"):
        paired_bootstrap([1, float("nan")], [1, 2])


def test_auroc_has_an_interval_that_narrows_with_more_clips():
    few = bootstrap_auroc([1, 2, 3, 4], [0, 1, 2, 3])
    many = bootstrap_auroc([1, 2, 3, 4] * 10, [0, 1, 2, 3] * 10)
    assert few["auroc"] == many["auroc"] == 11.5 / 16
    assert few["low"] < many["low"] < many["auroc"] < many["high"] <= few["high"]
    with pytest.raises(ValueError, match="neither empty"):
        bootstrap_auroc([], [1.0])
