"""What the correction of a run did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class CorrectedStep:
    """One corrected sampling step.

    Attributes:
        step: index into the schedule. sigma: its noise level. run: which pass over the schedule.
        change: root mean square of what was changed in the latents, of their own.
        factor: how many times as large it was handed to the sampler.
        seconds: that it took.
    """

    step: int
    sigma: float
    run: int
    change: float
    factor: float
    seconds: float


@dataclass
class EstimateReport:
    """Filled while the sampler runs.

    Attributes:
        steps: the corrected ones, one entry per time. num_steps: length of the schedule. passes: over it.
        notes: things that the user should know.
    """

    steps: list[CorrectedStep] = field(default_factory=list)
    num_steps: int = 0
    passes: int = 0
    notes: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Forget an earlier run."""
        self.steps, self.num_steps, self.passes, self.notes = [], 0, 0, []

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def summary(self) -> str:
        """A few lines for people; steps count from 1."""
        steps = sorted({step.step + 1 for step in self.steps})
        lines = [f"corrected steps: {', '.join(map(str, steps)) or 'none'} of {self.num_steps}"]
        if self.steps:
            changes = [step.change for step in self.steps]
            seconds = sum(step.seconds for step in self.steps)
            lines.append(f"change: {min(changes):.3f} to {max(changes):.3f} of the latents, {seconds:.1f} s")
        return "\n".join(lines + self.notes)
