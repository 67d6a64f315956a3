"""Cheaper optimisation: what each mode leaves out.

Nearly all of an iteration's cost is the denoiser, and one evaluation of it yields every frame. So one evaluation can
serve as many frame pairs as there would have been iterations. docs/cost.md has what that saves, and what it changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from .pairs import Pair
from .settings import GuidanceSettings


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


def describe(mode: ComputeMode, checkpointed: bool) -> str:
    """In words, for the report."""
    parts = ["one evaluation per step" if mode.accumulate else "one evaluation per iteration"]
    parts += ["gradient through the late layers only"] if mode.truncated else []
    parts += ["checkpoints"] if checkpointed else []
    return ", ".join(parts)
