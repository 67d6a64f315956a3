"""The cheaper modes on a model small enough to know everything about, and the sums that are told before a run."""

from __future__ import annotations

import pytest
import torch

from motionprompt_core.flow import load_flow_model
from motionprompt_core.guidance.autograd import constant_layers
from motionprompt_core.guidance.modes import ComputeMode
from motionprompt_core.guidance.optimise import PromptOptimiser
from motionprompt_core.guidance.record import guide_step
from motionprompt_core.guidance.report import StepReport
from motionprompt_core.guidance.settings import GuidanceSettings
from motionprompt_core.guidance.tokens import LearnableTokens
from motionprompt_core.guidance.view import GuidedModel

FRAMES, WIDTH, SIZE = 5, 6, 4


class TwoLayers(torch.nn.Module):
    """Rows to latents; both layers see the rows, as both halves of a UNet see the prompt."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.early = torch.nn.Linear(WIDTH, 32)
        self.late = torch.nn.Linear(32 + WIDTH, FRAMES * 4 * SIZE * SIZE)

    def forward(self, cond):
        return self.late(torch.cat((self.early(cond).tanh(), cond))).reshape(FRAMES, 4, SIZE, SIZE)


@pytest.fixture
def network():
    return TwoLayers().requires_grad_(False)


@pytest.fixture
def model(network):
    to_pixels = torch.nn.Upsample(scale_factor=8, mode="bilinear")
    return GuidedModel(
        encode=lambda rows: rows["l"].flatten(),
        predict_x0=network,
        decode=lambda latents: to_pixels(latents)[:, :3].sigmoid(),
        flow=load_flow_model("gradient"),
    )


def optimised(model, steps=1, **settings):
    """Tokens and reports after some steps from the same start."""
    settings = GuidanceSettings(**{"iterations": 3, "learning_rate": 1e-4, "lambda_reg": 0.0, **settings})
    tokens = LearnableTokens({"l": torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1))})
    optimiser, reports = PromptOptimiser(tokens, settings, 0), [StepReport(step, 1.0) for step in range(steps)]
    for report in reports:
        guide_step(optimiser, model, report)
    return tokens.rows["l"].detach() - tokens.initial["l"], reports


@pytest.mark.parametrize("mode", ["balanced", "fast"])
def test_one_evaluation_serves_all_iterations(model, mode):
    evaluations = []
    predict = model.predict_x0
    model.predict_x0 = lambda cond: evaluations.append(1) or predict(cond)
    _, [exact] = optimised(model)
    assert len(evaluations) == 3
    _, [report] = optimised(model, mode=mode)
    assert len(evaluations) == 4
    assert report.iterations[0].pairs == [pair for iteration in exact.iterations for pair in iteration.pairs]


def test_balanced_makes_one_move_of_the_square_root_of_as_many(model):
    """Two frames have one pair: its gradient stays the same over three small moves."""
    predict = model.predict_x0
    model.predict_x0 = lambda cond: predict(cond)[:2]
    exact, balanced = (optimised(model, mode=mode, learning_rate=1e-6)[0] for mode in ("exact", "balanced"))
    torch.testing.assert_close(balanced * 3**0.5, exact, rtol=0.05, atol=0)


def test_the_gradient_of_the_pooled_pairs_is_the_mean_of_theirs(model):
    gradients = {}
    for mode in ("exact", "balanced"):
        found = gradients[mode] = []

        def watch(optimiser, model, groups, rows, found=found):
            found.append(rows[0].clone())
            rows[0].zero_()  # so that the tokens stay

        settings = GuidanceSettings(iterations=4, mode=mode, lambda_reg=0.0)
        tokens = LearnableTokens({"l": torch.ones(1, WIDTH) / 2})
        guide_step(PromptOptimiser(tokens, settings, 3, watch), model, StepReport(0, 1.0))
    assert len(gradients["exact"]) == 4 and len(gradients["balanced"]) == 1
    torch.testing.assert_close(gradients["balanced"][0], torch.stack(gradients["exact"]).mean(0))


@pytest.mark.parametrize("chunk_size", [1, 3])
def test_in_chunks_it_is_the_same(model, chunk_size):
    settings = GuidanceSettings(pairs=4, iterations=1)
    moves = []
    for mode in (ComputeMode(), ComputeMode(chunk_size=chunk_size)):
        tokens = LearnableTokens({"l": torch.ones(1, WIDTH) / 2})
        optimiser = PromptOptimiser(tokens, settings, 0)
        optimiser.mode = mode
        report = StepReport(0, 1.0)
        guide_step(optimiser, model, report)
        moves.append((tokens.rows["l"].detach().clone(), report.iterations[0].loss))
    torch.testing.assert_close(moves[0], moves[1])


def test_constant_layers_are_taken_as_given(network):
    rows = torch.ones(WIDTH, requires_grad=True)
    with constant_layers([network.early]):
        (found,) = torch.autograd.grad(network(rows).sum(), rows)
    torch.testing.assert_close(found, network.late.weight[:, 32:].sum(0))
    assert "forward" not in network.early.__dict__


def test_a_failed_step_leaves_no_trace(model):
    class Full(Exception):
        pass

    def fail():
        raise Full

    settings = GuidanceSettings(iterations=3)
    results = []
    for failures in (0, 1):
        tokens = LearnableTokens({"l": torch.ones(1, WIDTH) / 2})
        optimiser = PromptOptimiser(tokens, settings, 0)
        guide_step(optimiser, model, StepReport(0, 1.0))
        for _ in range(failures):
            calls, check = [], model.check
            model.check = lambda calls=calls: fail() if len(calls) == 9 else calls.append(1)
            with pytest.raises(Full):
                guide_step(optimiser, model, StepReport(1, 1.0))
            model.check = check
        report = StepReport(1, 1.0)
        guide_step(optimiser, model, report)
        results.append((tokens.rows["l"].detach().clone(), report.iterations))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
