"""Whether the learnable prompt has any say at the steps that are to be guided."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .comfy_types import Cond, Guider, ModelSampling
from .conds import Conds
from .report import GuidanceReport
from .tokens import PAYLOAD


def check_activity(
    conds: Conds, sigmas: Tensor, planned: Sequence[int], sampling: ModelSampling, report: GuidanceReport
) -> None:
    """Note the guided steps at which no learnable prompt has a say.

    Args:
        conds: the guider's, before they are processed. sigmas: the schedule. planned: the guided steps.
        sampling: the model's `model_sampling`.

    Raises:
        ValueError: it has none at any of them, so that nothing could be optimised.
    """
    learnable = [c for key in conds if key != "negative" for c in conds[key] if PAYLOAD in c]
    silent = [step for step in planned if not any(_active(c, float(sigmas[step]), sampling) for c in learnable)]
    if not silent:
        return
    where = f"of the guided steps {planned[0] + 1} to {planned[-1] + 1} of {len(sigmas) - 1}"
    if len(silent) == len(planned):
        raise ValueError(
            f"MotionPrompt: the learnable prompt has no say at any {where}: it is timed to another part of the "
            "schedule, or masked with strength 0. Move start and stop to where it acts, or change its "
            "time range or mask."
        )
    steps = ", ".join(str(step + 1) for step in silent)
    report.note(f"The learnable prompt has no say at step {steps}, {where}: there it is timed out or masked.")


def speaks(conds: Conds, timestep: Tensor, guider: Guider) -> bool:
    """Whether a learnable prompt of a guider's conds takes part in an evaluation at a noise level."""
    learnable = [c for key in conds if key != "negative" for c in conds[key] if PAYLOAD in c]
    sampling = guider.inner_model.model_sampling
    return any(_active(cond, float(timestep.flatten()[0]), sampling) for cond in learnable)


def _active(cond: Cond, sigma: float, sampling: ModelSampling) -> bool:
    """As ComfyUI decides whether an entry takes part in an evaluation, and whether with a weight above 0."""
    start, end = (cond.get(f"{edge}_percent") for edge in ("start", "end"))
    if start is not None and sigma > float(sampling.percent_to_sigma(start)):
        return False
    if end is not None and sigma < float(sampling.percent_to_sigma(end)):
        return False
    weight, mask = cond.get("strength", 1.0), cond.get("mask")
    if isinstance(mask, Tensor):
        weight = weight * cond.get("mask_strength", 1.0) * float(mask.abs().max())
    return weight != 0
