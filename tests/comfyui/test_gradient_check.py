"""The comparison of gradients with differences: it finds what is wrong, and says when it cannot tell."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.inprocess
WEIGHT = torch.randn(40, 40, generator=torch.Generator().manual_seed(1)) / 40**0.5


@pytest.fixture(scope="module")
def gradients(comfy):
    return comfy.module("nodes.host.gradient_check")


class Wrong(torch.autograd.Function):
    """The identity with a gradient that is spoilt on purpose."""

    @staticmethod
    def forward(ctx, given, spoil):
        ctx.spoil = spoil
        return given.clone()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.spoil(gradient.clone()), None


def first_tenth(gradient):
    gradient[..., gradient.shape[-1] // 10 :] = 0
    return gradient


def without_a_tenth(gradient):
    gradient[..., : gradient.shape[-1] // 10] = 0
    return gradient


FAULTS = {
    "nine tenths missing": first_tenth,
    "a tenth missing": without_a_tenth,
    "all missing": torch.zeros_like,
    "scaled": lambda gradient: 1.1 * gradient,
    "not finite": lambda gradient: gradient * float("nan"),
}


def layers(given, spoil=None, dtype=torch.float32):
    (x,) = given
    hidden = torch.tanh(x.to(dtype) @ WEIGHT.to(dtype))
    if spoil is not None:
        hidden = Wrong.apply(hidden, spoil)
    return [(hidden @ WEIGHT.T.to(dtype)).sin()]


def at(rows=6):
    return [torch.randn(rows, 40, generator=torch.Generator().manual_seed(2))]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_right_gradient_agrees(gradients, seed):
    found = gradients.check_part(layers, at(), seeded(seed))
    assert found.verdict == "agrees" and found.error < 1e-3 and found.resolution < 0.01


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_fault_is_found(gradients, fault, seed):
    found = gradients.check_part(lambda given: layers(given, FAULTS[fault]), at(), seeded(seed))
    assert found.verdict == "disagrees" and found.error > 0.02


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_gradient_that_is_given(gradients, fault):
    """Along itself a gradient of which nine tenths are missing agrees; the random lines show it."""
    (x,) = at()

    def loss(given):
        return layers(given)[0].square().mean()

    (gradient,) = torch.autograd.grad(loss([x.requires_grad_()]), x)
    if fault is not None:
        gradient = FAULTS[fault](gradient)
    found = gradients.check_gradient(loss, [x], [gradient], seeded())
    assert found.verdict == ("agrees" if fault is None else "disagrees")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_judged_by_its_own_rounding(gradients, dtype):
    for seed in range(3):
        right = gradients.check_part(lambda given: layers(given, dtype=dtype), at(), seeded(seed), half=True)
        assert right.verdict == "agrees", right
        wrong = gradients.check_part(lambda given: layers(given, first_tenth, dtype), at(), seeded(seed), half=True)
        assert wrong.verdict == "disagrees", wrong


def test_where_rounding_hides_everything_it_says_so(gradients):
    """A large constant leaves nothing of the small part that depends on the input."""
    found = gradients.check_part(lambda given: [(layers(given)[0] * 1e-3 + 100).half()], at(), seeded(), half=True)
    assert found.verdict == "cannot tell"


def test_a_model_that_is_not_deterministic_is_told_by_its_noise(gradients):
    noise = seeded(9)

    def noisy(given):
        return [layers(given)[0] + 0.5 * torch.randn(6, 40, generator=noise)]

    assert gradients.check_part(noisy, at(), seeded()).verdict == "cannot tell"


def test_what_changes_nothing_cannot_be_told(gradients):
    found = gradients.check_part(lambda given: [torch.ones(3)], at(), seeded())
    assert found.verdict == "cannot tell" and "changes nothing" in found.remark


def test_several_inputs_of_which_one_is_not_used(gradients):
    found = gradients.check_part(lambda given: layers(given[:1]), [*at(), torch.ones(3)], seeded())
    assert found.verdict == "agrees"
