"""What a guided run will cost, said before it starts."""

from __future__ import annotations

import math

from ...motionprompt_core.guidance.modes import cost_ratio
from ...motionprompt_core.guidance.presets import describe
from .comfy_types import cfg_of
from .guidance_run import GuidedRun
from .memory import gradient_memory


def cost_line(run: GuidedRun, num_steps: int) -> str:
    """One line about time, as a ratio to the plain video's, and about memory for gradients.

    The operations are what the model's family says; unknown ones are taken for SD1.5 with AnimateDiff.
    """
    settings, windows, family = run.settings, run.windows, run.family
    uncond = cfg_of(run.guider) != 1.0
    frames = run.shape[family.time]
    flows = run.guidance.num_flows
    pair = family.pair_cost(run.guidance.vae) * (1 + flows) / 2 + run.guidance.flow.module.cost * flows
    evaluated = frames  # by the denoiser; where windows overlap, more than there are
    if windows is not None:
        stride = max(1, windows.length - windows.overlap)
        evaluated = windows.length * max(1, math.ceil((frames - windows.overlap) / stride))

    def costs(checkpointed: bool) -> str:
        ratio = cost_ratio(
            settings, num_steps, uncond, checkpointed, pair / evaluated, windows is not None, family.costs
        )
        memory = gradient_memory(run.guider.model_patcher, run, checkpointed)
        return f"about {ratio:.2f} times the time of the plain video and {memory / 2**30:.1f} GiB for gradients"

    origin = describe(settings)
    line = (
        f"MotionPrompt, {origin + '; ' if origin else ''}mode {settings.mode}: {costs(settings.checkpointing == 'on')}"
    )
    if settings.checkpointing == "auto":
        line += f"; with checkpoints, if memory is short, {costs(True)}"
    if pair > 5:
        line += ". A TAESD VAE would save most of the decoding"
    return line + "."
