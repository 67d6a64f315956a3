"""What autograd needs beside the formulas: in-place layers, and gradients through half-precision networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn


def not_a_leaf(tensor: Tensor) -> bool:
    """Whether it is an intermediate result, and no weight."""
    return not tensor.is_leaf


def save_copies(which: Callable[[Tensor], bool] = not_a_leaf) -> AbstractContextManager[None]:
    """Within it, autograd keeps copies of what it saves instead of references.

    Layers that change a tensor in place after another operation saved it for the backward pass (`x += attention(x)`
    in CLIP and T5 implementations) are then differentiable. Costs the memory of the copies.

    Args:
        which: those to copy; by default intermediate results.
    """
    return torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: tensor.clone() if which(tensor) else tensor, lambda saved: saved
    )


@contextmanager
def constant_layers(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Within it no gradient flows through these layers: what they make is taken as given."""
    replaced = [(layer, layer.__dict__.get("forward"), layer.forward) for layer in layers]
    try:
        for layer, _, forward in replaced:
            layer.__dict__["forward"] = torch.no_grad()(forward)
        yield
    finally:
        for layer, own, _ in reversed(replaced):
            del layer.__dict__["forward"]
            if own is not None:
                layer.__dict__["forward"] = own


def power_of_two_scale(gradient: Tensor, target: float = 1.0) -> float:
    """The power of two that brings the greatest |value| of `gradient` near `target`; 1 for a gradient that is all zero.

    Multiplying by it loses no bit, so fp32 results stay exactly what they were while fp16 is spared underflow.
    """
    peak = float(gradient.detach().abs().max()) if gradient.numel() else 0.0
    if peak == 0 or not math.isfinite(peak):
        return 1.0
    return 2.0 ** max(-60, min(60, round(math.log2(target / peak))))


def backward_scaled(output: Tensor, gradient: Tensor, inputs: list[Tensor], retries: int = 0) -> list[Tensor]:
    """Gradients of sum(output * gradient) for `inputs`, computed at a scale that half precision can hold.

    A pass that overflows is repeated at a smaller scale, 2^-8 each time, up to `retries` times. The caller looks at
    whether what comes back is finite. An input that `output` does not depend on gets zeros (a prompt whose time range
    does not cover this step).
    """
    if not output.requires_grad:
        return [torch.zeros_like(i) for i in inputs]
    scale = power_of_two_scale(gradient)
    while True:
        scaled = torch.autograd.grad(
            output, inputs, grad_outputs=gradient * scale, retain_graph=retries > 0, allow_unused=True
        )
        found = [torch.zeros_like(i) if g is None else g.to(i.dtype) for g, i in zip(scaled, inputs, strict=True)]
        if retries == 0 or all(bool(torch.isfinite(g).all()) for g in found):
            return [g / scale for g in found]
        retries -= 1
        scale *= 2.0**-8
