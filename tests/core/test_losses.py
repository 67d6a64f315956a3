"""The three losses: values by hand, gradients, stability, and the order that each must keep."""

from __future__ import annotations

import math

import pytest
import torch

from motionprompt_core.guidance.losses import (
    adversarial_loss,
    detail_preservation,
    embedding_regulariser,
    motion_preservation,
    total_variation,
)
from motionprompt_core.media.ops import gaussian_blur

FORMS = ("saturating", "non_saturating", "wasserstein")


@pytest.mark.parametrize("form", FORMS)
def test_adversarial_loss_is_the_formula(form):
    logits = torch.linspace(-4, 4, 9, dtype=torch.float64)
    phi = torch.sigmoid(logits)
    expected = {"saturating": torch.log(1 - phi), "non_saturating": -torch.log(phi), "wasserstein": -logits}[
        form
    ].mean()
    assert adversarial_loss(logits, form).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_adversarial_loss_falls_as_motion_looks_more_real(form):
    losses = [adversarial_loss(torch.tensor([x]), form).item() for x in (-5.0, -1.0, 0.0, 1.0, 5.0)]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("logit", [-1e4, -100.0, 100.0, 1e4])
def test_adversarial_loss_is_finite_for_certain_discriminators(form, logit):
    logits = torch.tensor([logit], requires_grad=True)
    loss = adversarial_loss(logits, form)
    loss.backward()
    assert math.isfinite(loss.item()) and math.isfinite(logits.grad.item())


@pytest.mark.parametrize(
    ("logit", "expected"),
    [
        (-12.0, {"saturating": 0, "non_saturating": -1, "wasserstein": -1}),
        (12.0, {"saturating": -1, "non_saturating": 0, "wasserstein": -1}),
    ],
)
def test_only_wasserstein_pushes_alike_wherever_the_level_lies(logit, expected):
    for form in FORMS:
        logits = torch.tensor([logit], requires_grad=True)
        adversarial_loss(logits, form).backward()
        assert logits.grad.item() == pytest.approx(expected[form], abs=1e-5)


def test_total_variation_by_hand():
    flow = torch.zeros(1, 2, 2, 3)
    flow[0, 0] = torch.tensor([[0.0, 1.0, 3.0], [0.0, 1.0, 3.0]])  # right: 4 differences 1, 2, 1, 2; down: none
    flow[0, 1] = torch.tensor([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])  # right: none; down: 2, 2, 2
    assert total_variation(flow).item() == pytest.approx(6 / 8 + 6 / 6)


def test_total_variation_does_not_depend_on_size():
    ramp = torch.linspace(0, 10, 11).expand(1, 2, 11, 11)
    large = torch.linspace(0, 40, 41).expand(1, 2, 41, 41)
    assert total_variation(ramp).item() == pytest.approx(total_variation(large).item(), rel=1e-5)


def test_total_variation_ignores_uniform_motion_and_batch_size():
    assert total_variation(torch.full((2, 2, 5, 5), 7.0)).item() == 0
    flow = torch.randn(1, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    assert total_variation(flow.repeat(3, 1, 1, 1)).item() == pytest.approx(total_variation(flow).item(), rel=1e-5)


def test_embedding_regulariser_is_zero_at_the_start_and_pulls_back():
    initial = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    assert embedding_regulariser(initial, initial).item() == 0
    tokens = (initial + torch.tensor([[0.5], [-1.0]])).requires_grad_()
    loss = embedding_regulariser(tokens, initial)
    loss.backward()
    assert loss.item() == pytest.approx(8 * 0.25 + 8 * 1.0, rel=1e-5)
    assert torch.allclose(tokens.grad, 2 * (tokens.detach() - initial))


def test_gradients_agree_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    flow = torch.randn(2, 2, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    tokens = torch.randn(2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total_variation, flow)
    for form in FORMS:
        assert torch.autograd.gradcheck(lambda x, f=form: adversarial_loss(x, f), logits)
    assert torch.autograd.gradcheck(lambda t: embedding_regulariser(t, torch.zeros_like(t)), tokens)


def test_unknown_choices_and_shapes_are_refused():
    with pytest.raises(ValueError, match="form is 'hinge', expected one of: saturating, "):
        adversarial_loss(torch.zeros(1), "hinge")
    with pytest.raises(ValueError, match=r"shape \(1, 2, 1, 4\)"):
        total_variation(torch.zeros(1, 2, 1, 4))
    with pytest.raises(ValueError, match=r"\(1, 8\), expected .*\(2, 8\)"):
        embedding_regulariser(torch.zeros(1, 8), torch.zeros(2, 8))


def test_the_motion_preservation_is_the_share_of_speed_that_was_lost():
    reference = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 4
    for factor, loss in ((0.25, 0.75), (1.0, 0.0), (2.0, 0.0)):
        assert motion_preservation(reference * factor, reference).item() == pytest.approx(loss, abs=1e-3)
    slow = (reference * 0.5).requires_grad_()
    motion_preservation(slow, reference).backward()
    assert (slow.grad * slow).sum() < 0  # against the gradient is faster
    assert motion_preservation(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)).item() == 0  # nothing to lose


def test_the_detail_preservation_is_the_share_of_detail_that_was_lost():
    frames = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for contrast, loss in ((0.25, 0.75), (1.0, 0.0), (2.0, 0.0)):
        assert detail_preservation(frames * contrast + 0.1, frames).item() == pytest.approx(loss, abs=1e-3)
    soft = gaussian_blur(frames, 0.5).requires_grad_()
    assert 0.1 < detail_preservation(soft, frames).item() < 0.9
    assert torch.autograd.gradcheck(lambda x: detail_preservation(x, frames), soft)
    assert detail_preservation(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)).item() == 0  # nothing to lose
