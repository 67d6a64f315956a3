"""Cheaper optimisation: what each mode leaves out, and what a run will cost beside plain sampling.

Nearly all of an iteration's cost is the denoiser, and one evaluation of it yields every frame. So one evaluation can
serve as many frame pairs as there would have been iterations. docs/cost.md has what that saves, and what it changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from .schedule import guided_steps
from .settings import GuidanceSettings


@dataclass(frozen=True)
class DenoiserCosts:
    """What gradients cost with a denoiser, in forward passes of it; "late" is the part that mode "fast" differentiates.

    The defaults were counted for SD1.5 with a motion module (`python -m research bench`).

    Attributes:
        backward, late_backward: a backward pass.
        again, late_again: running checkpointed blocks once more.
    """

    backward: float = 1.11
    again: float = 0.85
    late_backward: float = 0.70
    late_again: float = 0.55


@dataclass(frozen=True)
class Economy:
    """What an optimisation does without.

    Attributes:
        pooled: one evaluation per step, with the pairs of all K iterations, and one larger move: sqrt(K) times the
            learning rate, as moves by different pairs partly cancel. K then hardly costs anything.
        late: no gradient through the denoiser's early layers (a UNet's down-blocks), which keep what they make of
            the prompt. A biased gradient.
        one_by_one: decode and judge one pair after the other, also where `pairs` asks for several at once.
    """

    pooled: bool = False
    late: bool = False
    one_by_one: bool = False


ECONOMIES = {
    "exact": Economy(),
    "balanced": Economy(pooled=True),
    "fast": Economy(pooled=True, late=True, one_by_one=True),
}


def leaner(economy: Economy, checkpointed: bool) -> tuple[Economy, bool] | None:
    """What to try when memory ran out, and whether with checkpoints; None if nothing is left to save."""
    if not checkpointed:
        return economy, True
    if not economy.late or not economy.one_by_one:
        return Economy(pooled=economy.pooled, late=True, one_by_one=True), True
    return None


def describe(economy: Economy, checkpointed: bool) -> str:
    """In words, for the report."""
    parts = ["one evaluation per step" if economy.pooled else "one evaluation per iteration"]
    parts += ["gradient through the late layers only"] if economy.late else []
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
    economy = ECONOMIES[settings.mode]
    costs = costs or DenoiserCosts()
    backward, again = (costs.late_backward, costs.late_again) if economy.late else (costs.backward, costs.again)
    evaluations = 1 if economy.pooled else settings.iterations
    step = evaluations * (1 + backward + (again + windows if checkpointed else 0.0))
    step += pair * settings.pairs * settings.iterations
    step += (settings.loss_on == "cfg" and uncond) + settings.needs_unguided
    plain = num_steps * (2 if uncond else 1)
    return 1 + (len(guided) * step + 1) / plain
