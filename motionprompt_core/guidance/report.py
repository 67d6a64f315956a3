"""What the guidance did, in numbers: one `StepReport` per guided step, made of `IterationReport`s."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .pairs import Pair


@dataclass
class IterationReport:
    """One optimiser iteration; the losses are those at the tokens before Adam moved them.

    Attributes:
        loss: the weighted sum that is minimised. losses: each of its terms before weighting, by name (`losses.TERMS`);
            those that are switched off are absent.
        phi: the discriminator's mean probability that the flow is of a real video, in (0, 1).
        grad_norm: norm of the loss's gradient over all tokens, before clipping.
        drift: ||T - T0|| after the iteration.
        cosine: mean cosine of T with T0 after the iteration.
        pairs: the frame pairs that were looked at, each of more frames for a discriminator of several flows.
        flow: of the first of them, (2, H, W) in pixels, for a step's first iteration; not in `to_dict`.
    """

    loss: float
    losses: dict[str, float]
    phi: float | None
    grad_norm: float
    drift: float
    cosine: float
    pairs: list[Pair]
    flow: Tensor | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "flow"}


@dataclass
class StepReport:
    """One guided sampling step.

    Attributes:
        step: index into the schedule, from 0. sigma: its noise level. run: which pass over the schedule, from 0
            (FreeInit makes several).
        iterations: what the optimiser did.
        fallback: why the step used the unoptimised prompt after all, or None.
        seconds: time that the optimisation took.
    """

    step: int
    sigma: float
    run: int = 0
    iterations: list[IterationReport] = field(default_factory=list)
    fallback: str | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings; the step is counted from 1, for people."""
        return {
            **self.__dict__,
            "step": self.step + 1,
            "iterations": [iteration.to_dict() for iteration in self.iterations],
        }


@dataclass
class FlowSample:
    """The motion of one frame pair before and after a step's optimisation, for the picture.

    Attributes:
        step: index into the schedule. pair: the two frames.
        before, after: flow, (2, H, W) in pixels.
    """

    step: int
    pair: tuple[int, int]
    before: Tensor
    after: Tensor
