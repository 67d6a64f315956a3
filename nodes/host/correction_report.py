"""What the correction of a run did, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


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
        left: the others of the last pass, and why they were not.
        notes: things that the user should know.
    """

    steps: list[CorrectedStep] = field(default_factory=list)
    num_steps: int = 0
    passes: int = 0
    left: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Forget an earlier run."""
        self.steps, self.num_steps, self.passes, self.left, self.notes = [], 0, 0, {}, []

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def to_dict(self) -> dict[str, object]:
        """Plain numbers and strings for people; steps count from 1."""
        steps = [{**asdict(step), "step": step.step + 1} for step in self.steps]
        return {**asdict(self), "steps": steps, "left": {step + 1: reason for step, reason in self.left.items()}}

    def summary(self) -> str:
        """A few lines for people; steps count from 1."""
        steps = sorted({step.step + 1 for step in self.steps})
        lines = [f"corrected steps: {', '.join(map(str, steps)) or 'none'} of {self.num_steps}"]
        if self.steps:
            changes = [step.change for step in self.steps]
            seconds = sum(step.seconds for step in self.steps)
            lines.append(f"change: {min(changes):.3f} to {max(changes):.3f} of the latents, {seconds:.1f} s")
        for reason in dict.fromkeys(self.left.values()):
            lines.append(f"not {_ranges([step for step in sorted(self.left) if self.left[step] == reason])}: {reason}")
        return "\n".join(lines + self.notes)


def _ranges(steps: list[int]) -> str:
    """Steps in a row, counted from 1: "1 to 4, 6"."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ", ".join(f"{run[0] + 1} to {run[-1] + 1}" if len(run) > 1 else str(run[0] + 1) for run in runs)
