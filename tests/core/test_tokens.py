"""LearnableTokens: master rows in fp32, drift, and going back."""

from __future__ import annotations

import pytest
import torch

from motionprompt_core.guidance.tokens import LearnableTokens


def test_rows_are_fp32_copies_whatever_comes_in():
    source = torch.randn(2, 8, dtype=torch.float16)
    tokens = LearnableTokens({"l": source})
    assert tokens.rows["l"].dtype == torch.float32
    with torch.no_grad():
        tokens.rows["l"].add_(1)
    assert torch.equal(tokens.initial["l"], source.float())


def test_made_in_inference_mode_they_still_learn():
    with torch.inference_mode():
        tokens = LearnableTokens({"l": torch.ones(1, 4)})
    tokens.rows["l"].square().sum().backward()
    assert torch.equal(tokens.rows["l"].grad, torch.full((1, 4), 2.0))


def test_drift_is_the_distance_and_the_angle():
    tokens = LearnableTokens({"l": torch.tensor([[1.0, 0.0]]), "g": torch.tensor([[0.0, 2.0, 0.0]])})
    assert tokens.drift() == (0.0, 1.0)
    tokens.load({"l": torch.tensor([[0.0, 1.0]]), "g": tokens.initial["g"]})
    distance, cosine = tokens.drift()
    assert distance == pytest.approx(2**0.5)
    assert cosine == pytest.approx(0.5)
    tokens.load(tokens.initial)
    assert tokens.drift() == (0.0, 1.0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "no learnable tokens"),
        ({"l": torch.zeros(8)}, r"\(n, d\)"),
        ({"l": torch.zeros(0, 8)}, r"\(0, 8\)"),
        ({"g": torch.full((1, 8), torch.nan)}, "'g' has NaN"),
    ],
)
def test_bad_rows_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        LearnableTokens(rows)
