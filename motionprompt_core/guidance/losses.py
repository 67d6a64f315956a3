"""The three terms of the objective that the learnable tokens T minimise, and two that preserve motion and detail:

    l1 * log(1 - phi(f)) + l2 * TV_L1(f) + l3 * ||T - T0||^2

with f the flow between two decoded frames and phi(f) = sigmoid(logits) the probability that its motion is real.
`TERMS` is the objective: a new loss is a function, a row there, and its weight in the settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..media.ops import laplacian
from .settings import Adversarial, GuidanceSettings
from .tokens import LearnableTokens


def adversarial_loss(logits: Tensor, form: Adversarial = "saturating") -> Tensor:
    """How unreal the discriminator finds the motion, averaged over the batch.

    Args:
        logits: (B,), unbounded; from `FlowDiscriminator`.
        form: "saturating" is the paper's log(1 - phi): at most 0, unbounded below, and its gradient -phi vanishes where
            the discriminator is sure of a fake. "non_saturating" is -log(phi): at least 0, gradient phi - 1, strongest
            exactly there (Goodfellow et al. 2014, Sec. 3). "wasserstein" is minus the logit, gradient -1 everywhere
            (Arjovsky et al. 2017): what counts is how the score changes, and not the level that it is at.

    Returns:
        A scalar; finite for every finite logit.
    """
    if form == "saturating":
        return F.logsigmoid(-logits).mean()
    if form == "non_saturating":
        return -F.logsigmoid(logits).mean()
    if form == "wasserstein":
        return -logits.mean()
    raise ValueError(f"adversarial loss: form is {form!r}, expected one of: {', '.join(get_args(Adversarial))}.")


def total_variation(flow: Tensor) -> Tensor:
    """TV_L1: mean absolute forward difference of the flow, to the right and down.

    The paper sums over pixels, which grows with the frame's area; with the mean one weight fits every size.

    Args:
        flow: (B, 2, H, W), px.

    Returns:
        A scalar >= 0, px, averaged over the batch; 0 only for a uniform flow.
    """
    if flow.ndim != 4 or min(flow.shape[-2:]) < 2:
        raise ValueError(f"total variation: flow has shape {tuple(flow.shape)}, expected (B, 2, H, W), H and W over 1.")
    right = (flow[..., :, 1:] - flow[..., :, :-1]).abs()
    down = (flow[..., 1:, :] - flow[..., :-1, :]).abs()
    return right.mean() + down.mean()


def motion_preservation(flow: Tensor, reference: Tensor) -> Tensor:
    """max(0, 1 - s / s_ref) of the mean speeds s of each flow and its reference (B, 2, H, W; px), averaged over B.

    Not in the paper: its losses are lowest where little moves. 0 for motion no slower than the reference, 1 for none.
    """
    speeds = [f.square().sum(1).add(1e-6).sqrt().flatten(1).mean(1) for f in (flow, reference.detach())]
    return (1 - speeds[0] / speeds[1]).clamp(min=0).mean()


def detail_preservation(frames: Tensor, reference: Tensor) -> Tensor:
    """max(0, 1 - d / d_ref) of the detail d of each frame and its reference (N, 3, H, W), averaged over N; d is the
    standard deviation of the luma's Laplacian.

    Not in the paper: smooth flow is also had by a blurred picture. 0 for frames no softer than the reference, 1 for
    plain ones.
    """
    detail = [laplacian(f).flatten(1).var(1).add(1e-8).sqrt() for f in (frames, reference.detach())]
    return (1 - detail[0] / detail[1]).clamp(min=0).mean()


def embedding_regulariser(tokens: Tensor, initial: Tensor) -> Tensor:
    """||T - T0||^2: keeps the learnable embeddings (n, dim) near their first value, and so the prompt's meaning."""
    if tokens.shape != initial.shape:
        raise ValueError(
            f"embedding regulariser: tokens have shape {tuple(tokens.shape)}, expected that of the initial embeddings, "
            f"{tuple(initial.shape)}."
        )
    return (tokens - initial).square().sum()


@dataclass(frozen=True)
class Term:
    """One loss of the objective.

    Attributes:
        name: in reports. weight: name of its weight in `GuidanceSettings`; 0 leaves the loss out.
        loss: its value, a scalar, of a `View`; or of the `LearnableTokens`, for a loss that does not look at the video.
        needs: what there has to be for it, beside a view: its discriminator's "logits", or its "initial" view, for
            which the initial tokens' estimate is evaluated as well; "tokens" for a loss that looks at these alone.
    """

    name: str
    weight: str
    loss: Callable[[Any, GuidanceSettings], Tensor]
    needs: Literal["logits", "initial", "tokens"] | None = None

    def weight_in(self, settings: GuidanceSettings) -> float:
        return getattr(settings, self.weight)


def _regulariser(tokens: LearnableTokens, settings: GuidanceSettings) -> Tensor:
    return torch.stack([embedding_regulariser(t, tokens.initial[key]) for key, t in tokens.rows.items()]).sum()


TERMS = (
    Term("disc", "lambda_disc", lambda view, s: adversarial_loss(view.logits, s.adversarial), "logits"),
    Term("tv", "lambda_tv", lambda view, s: total_variation(view.flow)),
    Term("reg", "lambda_reg", _regulariser, "tokens"),
    Term("motion", "preserve_motion", lambda view, s: motion_preservation(view.flow, view.initial.flow), "initial"),
    Term("detail", "preserve_detail", lambda view, s: detail_preservation(view.frames, view.initial.frames), "initial"),
)
