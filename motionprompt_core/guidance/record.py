"""One guided sampling step and its report: the clock, undoing what failed, and the motion before and after."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .objective import NonFiniteError
from .optimise import PromptOptimiser
from .pairs import Pair
from .report import FlowSample, StepReport
from .view import GuidedModel, View


def guide_step(
    optimiser: PromptOptimiser,
    model: GuidedModel,
    report: StepReport,
    compare: bool = False,
    on_iteration: Callable[[StepReport], None] | None = None,
) -> FlowSample | None:
    """Optimise the tokens at one sampling step and write into `report` what happened.

    A loss or gradient that is not finite ends the step: `report.fallback` says why, and nothing is raised. Whatever
    ends a step early, the optimiser is as it was before, and the step can be tried again.

    Args:
        compare: look at one pair's motion again afterwards (one more evaluation, without gradient), and return it as
            it was at the step's first iteration and as it has become.
        on_iteration: called after each iteration, for a progress line.
    """
    started, state = time.perf_counter(), optimiser.state_dict()
    try:
        for iteration in optimiser.step(model):
            report.iterations.append(iteration)
            if on_iteration is not None:
                on_iteration(report)
        first = report.iterations[0]
        if not compare or first.flow is None:
            return None
        pair = first.pairs[0][:2]
        after = motion_of(model, optimiser.tokens.rows, pair)
        return FlowSample(report.step, (pair[0], pair[1]), first.flow.float().cpu(), after)
    except BaseException as error:
        optimiser.load_state_dict(state)
        if not isinstance(error, NonFiniteError):
            raise
        report.fallback = str(error)
        return None
    finally:
        report.seconds = time.perf_counter() - started


@torch.no_grad()
def motion_of(model: GuidedModel, rows: Mapping[str, Tensor], pair: Pair) -> Tensor:
    """Motion between two frames of the estimate with these tokens, (2, H, W) in pixels, on the CPU."""
    x0 = model.predict_x0(model.encode(rows))
    model.check()
    return View(model, x0, [pair]).flow[0].float().cpu()
