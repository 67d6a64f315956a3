"""What a guided run will cost, said before it starts."""

from __future__ import annotations

import math

from ...motionprompt_core.guidance.modes import COMPUTE_MODES
from ...motionprompt_core.guidance.objective import needs_initial
from ...motionprompt_core.guidance.presets import describe
from ...motionprompt_core.guidance.schedule import guided_steps
from ...motionprompt_core.guidance.settings import GuidanceSettings
from .comfy_types import cfg_of
from .families.base import DenoiserCosts
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


def cost_ratio(
    settings: GuidanceSettings,
    num_steps: int,
    uncond: bool = True,
    checkpointed: bool = False,
    pair: float = 0.0,
    windows: bool = False,
    costs: DenoiserCosts | None = None,
) -> float:
    """Estimated operations of a guided run over those of a plain one, at least 1.

    Args:
        num_steps: length of the schedule. uncond: plain steps evaluate the negative prompt as well (CFG over 1).
        checkpointed: the denoiser's blocks are checkpointed.
        pair: decoding and judging one frame pair, forwards and backwards, in evaluations of the denoiser.
        windows: the frames are evaluated in windows, each of which is run once more as a whole with checkpoints.
        costs: of the denoiser; None for SD1.5 with a motion module.
    """
    guided = guided_steps(num_steps, settings)
    if not guided:
        return 1.0
    mode = COMPUTE_MODES[settings.mode]
    costs = costs or DenoiserCosts()
    late = (costs.truncated_backward, costs.truncated_again)
    backward, again = late if mode.truncated else (costs.backward, costs.again)
    step = mode.updates(settings) * (1 + backward + (again + windows if checkpointed else 0.0))
    step += pair * settings.pairs * settings.iterations
    step += (settings.loss_on == "cfg" and uncond) + needs_initial(settings)
    plain = num_steps * (2 if uncond else 1)
    return 1 + (len(guided) * step + 1) / plain
