"""In-place layers and half precision."""

from __future__ import annotations

import pytest
import torch

from motionprompt_core.guidance.autograd import backward_scaled, power_of_two_scale, save_copies


def in_place_layer(x):
    y = x * x  # not a leaf
    z = y.sin()
    y += z  # sin's backward pass needs the old y
    return y.sum()


def test_in_place_layers_have_the_right_gradient_within_save_copies():
    x = torch.tensor([0.3, -1.2], requires_grad=True)
    with pytest.raises(RuntimeError, match="inplace"):
        in_place_layer(x).backward()
    with save_copies():
        loss = in_place_layer(x)
    (gradient,) = torch.autograd.grad(loss, x)
    expected = 2 * x * (1 + (x * x).cos())
    torch.testing.assert_close(gradient, expected)


def test_fp32_results_do_not_change_by_a_bit():
    torch.manual_seed(0)
    x, weight = torch.randn(4, requires_grad=True), torch.randn(4, 4)
    upstream = torch.randn(4) * 1e-7
    (plain,) = torch.autograd.grad(x @ weight, x, grad_outputs=upstream)
    assert torch.equal(backward_scaled(x @ weight, upstream, [x])[0], plain)


def test_gradients_too_small_for_fp16_survive():
    x = torch.ones(3, requires_grad=True)
    upstream = torch.full((3,), 1e-9)
    half = (x.half() * 0.5).float()
    assert torch.autograd.grad(half, x, grad_outputs=upstream, retain_graph=True)[0].abs().max() == 0
    torch.testing.assert_close(backward_scaled(half, upstream, [x])[0], upstream * 0.5, rtol=1e-3, atol=0)


def test_an_overflow_is_tried_again_at_a_smaller_scale():
    x = torch.ones(1, requires_grad=True)
    out = x.half()
    for _ in range(3):
        out = out * 50.0  # the gradient's chain is 125000, beyond fp16
    out = out.float()
    assert not torch.isfinite(backward_scaled(x.half().mul(50).mul(50).mul(50).float(), torch.ones(1), [x])[0])
    torch.testing.assert_close(
        backward_scaled(out, torch.ones(1), [x], retries=1)[0], torch.tensor([125000.0]), rtol=1e-3, atol=0
    )


def test_an_input_without_influence_gets_zeros():
    x, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    assert torch.equal(backward_scaled(2 * x, torch.ones(2), [x, unused])[1], torch.zeros(3))


@pytest.mark.parametrize("peak", [0.0, 1e-30, 3.0, 1e30])
def test_scales_are_powers_of_two(peak):
    scale = power_of_two_scale(torch.tensor([peak, -peak / 2]))
    assert scale == 2.0 ** round(torch.tensor(scale).log2().item())
    if 1e-15 < peak < 1e15:
        assert 0.5 <= scale * peak <= 2
