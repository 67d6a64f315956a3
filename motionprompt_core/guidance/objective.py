"""The objective at an estimate of the video: its value, and its gradients for the estimate and the tokens."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from .losses import TERMS
from .pairs import Pair
from .settings import GuidanceSettings
from .tokens import LearnableTokens
from .view import GuidedModel, View


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is NaN or infinite."""


def needs_initial(settings: GuidanceSettings) -> bool:
    """Whether a loss compares with the estimate of the initial tokens, which costs an evaluation per guided step."""
    return any(term.needs == "initial" and term.weight_in(settings) > 0 for term in TERMS)


def objective(view: View, settings: GuidanceSettings) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the losses on a view that are switched on, and each by name, not weighted."""
    total, losses = view.x0.new_zeros((), dtype=torch.float32), {}
    for term in TERMS:
        weight = term.weight_in(settings)
        if weight > 0 and term.needs != "tokens" and (term.needs is None or getattr(view, term.needs) is not None):
            losses[term.name] = term.loss(view, settings)
            total = total + weight * losses[term.name]
    return total, losses


def regularise(
    tokens: LearnableTokens, gradients: list[Tensor], settings: GuidanceSettings
) -> tuple[float, dict[str, float]]:
    """The same for the losses on the tokens alone, whose gradients are added to those of the rows T."""
    total, losses = 0.0, {}
    for term in TERMS:
        weight = term.weight_in(settings)
        if weight > 0 and term.needs == "tokens":
            loss = term.loss(tokens, settings)
            for gradient, part in zip(gradients, torch.autograd.grad(loss, tokens.parameters()), strict=True):
                gradient.add_(part, alpha=weight)
            losses[term.name] = float(loss.detach())
            total += weight * losses[term.name]
    return total, losses


@dataclass
class Evaluation:
    """What the losses have to say of an estimate.

    Attributes:
        loss: their weighted sum. losses: each, by name, not weighted. phi: probability that the motion is real.
        gradient: of the weighted sum for x0, (F, C, h, w). flow: the first pair's, (2, H, W), px.
    """

    loss: float
    losses: dict[str, float]
    phi: float | None
    gradient: Tensor
    flow: Tensor


def evaluate(
    model: GuidedModel,
    x0: Tensor,
    groups: list[list[Pair]],
    settings: GuidanceSettings,
    x0_initial: Tensor | None = None,
) -> Evaluation:
    """Means over the pairs, in groups that are decoded and judged one after the other.

    Args:
        x0: clean latents (F, C, h, w), detached. x0_initial: those that the initial tokens make, if a loss needs them.
    """
    x0.requires_grad_()
    gradient, flow = torch.zeros_like(x0), None
    numbers: dict[str, float] = defaultdict(float)
    each = sum(len(pairs) for pairs in groups) / len(groups)
    for pairs in groups:
        weight = len(pairs) / each  # 1 where all are of one size
        view = View(model, x0, pairs, x0_initial)
        loss, losses = objective(view, settings)
        require_finite(loss, "loss")
        if loss.requires_grad:
            gradient += torch.autograd.grad(weight * loss, x0)[0]
        if "disc" in losses and view.logits is not None:
            losses["phi"] = torch.sigmoid(view.logits).mean()
        for name, value in {"loss": loss, **losses}.items():
            numbers[name] += weight * float(value.detach()) / len(groups)
        flow = view.flow[0].detach() if flow is None else flow
    require_finite(gradient, "gradient of the loss for the latents")
    assert flow is not None
    loss, phi = numbers.pop("loss"), numbers.pop("phi", None)
    return Evaluation(loss, dict(numbers), phi, gradient / len(groups), flow)


def require_finite(values: Tensor, what: str) -> Tensor:
    """The same values; NonFiniteError if one is NaN or infinite."""
    if not bool(torch.isfinite(values).all()):
        raise NonFiniteError(f"The {what} was not finite (NaN or infinity).")
    return values
