"""Cheaper optimisation: what each mode leaves out, and what a run will cost beside plain sampling.

Nearly all of an iteration's cost is the denoiser, and one evaluation of it yields every frame. So one evaluation can
serve as many frame pairs as there would have been iterations. docs/cost.md has what that saves, and what it changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from .objective import needs_initial
from .pairs import Pair
from .schedule import guided_steps
from .settings import GuidanceSettings


@dataclass(frozen=True)
class DenoiserCosts:
    """What gradients cost with a denoiser, in forward passes of it; truncated as mode "fast" has it.

    The defaults were counted for SD1.5 with a motion module (`python -m research bench`).

    Attributes:
        backward, truncated_backward: a backward pass.
        again, truncated_again: running checkpointed blocks once more.
    """

    backward: float = 1.11
    again: float = 0.85
    truncated_backward: float = 0.70
    truncated_again: float = 0.55


@dataclass(frozen=True)
class ComputeMode:
    """What an optimisation does without.

    Attributes:
        accumulate: one evaluation and one update per step; the gradient is accumulated over the pairs of all K
            iterations. K then hardly costs anything.
        truncated: the backward pass ends before the denoiser's early layers (a UNet's down-blocks), which keep what
            they make of the prompt. A biased gradient.
        chunk_size: pairs that are decoded and judged at once; 0 for all of an iteration's.
    """

    accumulate: bool = False
    truncated: bool = False
    chunk_size: int = 0

    def updates(self, settings: GuidanceSettings) -> int:
        """Updates of the tokens per guided step."""
        return 1 if self.accumulate else settings.iterations

    def draws(self, settings: GuidanceSettings) -> int:
        """How often pairs are drawn per update."""
        return settings.iterations if self.accumulate else 1

    def lr_factor(self, settings: GuidanceSettings) -> float:
        """Learning rate over the settings': K updates by different pairs partly cancel, so one goes sqrt(K) as far."""
        return settings.iterations**0.5 if self.accumulate else 1.0

    def chunks(self, pairs: list[Pair]) -> list[list[Pair]]:
        size = self.chunk_size or len(pairs)
        return [pairs[i : i + size] for i in range(0, len(pairs), size)]


COMPUTE_MODES = {
    "exact": ComputeMode(),
    "balanced": ComputeMode(accumulate=True),
    "fast": ComputeMode(accumulate=True, truncated=True, chunk_size=1),
}


def oom_fallback(mode: ComputeMode, checkpointed: bool) -> tuple[ComputeMode, bool] | None:
    """What to try when memory ran out, and whether with checkpoints; None if nothing is left to save."""
    if not checkpointed:
        return mode, True
    if not mode.truncated or mode.chunk_size != 1:
        return ComputeMode(mode.accumulate, truncated=True, chunk_size=1), True
    return None


def describe(mode: ComputeMode, checkpointed: bool) -> str:
    """In words, for the report."""
    parts = ["one evaluation per step" if mode.accumulate else "one evaluation per iteration"]
    parts += ["gradient through the late layers only"] if mode.truncated else []
    parts += ["checkpoints"] if checkpointed else []
    return ", ".join(parts)


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
