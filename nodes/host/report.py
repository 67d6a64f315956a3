"""What a run of a sampler node has to tell of the guidance: in lines, in numbers, and beside other samplings."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace

import torch

from ...motionprompt_core.guidance.report import FlowSample, StepReport
from .correction_report import EstimateReport

_KEPT = 32  # samplings of one queued run, and of those before
UNKNOWN = (
    "The latent that is connected is none that a sampler gave back: another node changed it since, it is another "
    "model's, or denoise was 0 and nothing was sampled. This is the last sampling's report."
)


@dataclass
class GuidanceReport:
    """Everything a guided run has to tell. It is filled while the sampler runs.

    Attributes:
        state: "waiting" (not sampled yet), "running", "done", "off" (strength 0 or empty window), "interrupted",
            "failed".
        num_steps: length of the schedule. passes: how often it was gone through.
        planned: the steps that were to be guided, from 0.
        missed: planned steps that the sampler leapt over.
        notes: things the user should know. estimate: what the run was expected to cost, in words.
        seconds: time spent optimising. sampling_seconds: the whole run. peak_memory: bytes, where the device can tell.
        correction: what guidance of the estimate did; None without.
        video: identifies what was sampled. others: reports of other samplings of the same model in the same queued run.
        older: of queued runs before, whose videos may still be in use where only a part of a workflow runs anew.
    """

    state: str = "waiting"
    settings: dict[str, object] = field(default_factory=dict)
    num_steps: int = 0
    passes: int = 0
    planned: list[int] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    steps: list[StepReport] = field(default_factory=list)
    flow: list[FlowSample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    estimate: str = ""
    sampling_seconds: float = 0.0
    peak_memory: int | None = None
    correction: EstimateReport | None = None
    video: str = ""
    others: list[GuidanceReport] = field(default_factory=list, repr=False)
    older: list[GuidanceReport] = field(default_factory=list, repr=False)

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def guided(self) -> list[int]:
        """The steps whose optimised prompt was used, in order, one entry per time."""
        return [step.step for step in self.steps if step.fallback is None]

    def begin(self, settings: dict[str, object], same_run: bool = False) -> None:
        """Make room for the next sampling (a node's output may be kept and sampled again).

        Args:
            same_run: keep what other samplings of this queued run have told, in `others`.
        """
        before = [*self.others, self._copy()] if self.state != "waiting" else []
        others, older = (before, self.older) if same_run else ([], [*self.older, *before])
        self._take(GuidanceReport("running", settings, others=others[-_KEPT:], older=older[-_KEPT:]))

    def settle(self) -> None:
        """After a sampling: the one with the most guided steps stands in front, the last one of several alike."""
        if not self.others:
            return
        reports = [self._copy(), *reversed(self.others)]
        first = max(reports, key=lambda report: len(report.planned))
        others = [report for report in reversed(reports) if report is not first]
        self._take(replace(first, others=others, older=self.older))

    def look_for_effect(self) -> None:
        """Note it where everything ran, and nothing reached the tokens."""
        norms = [iteration.grad_norm for step in self.steps for iteration in step.iterations]
        if norms and not any(norms):
            self.note(
                "Nothing reached the learnable tokens: the loss's gradient for them was 0 throughout, so the video is "
                "that of the prompt as it was. Another node may replace, mask or cut off the positive conditioning."
            )

    def of(self, video: str) -> GuidanceReport:
        """The report of the sampling that made this `video`; the one in front, and a note, if that is not known."""
        known = (self, *self.others, *reversed(self.older))
        found = next((report for report in known if report.video == video), None)
        return found or replace(self, notes=[*self.notes, UNKNOWN] if self.video else self.notes)

    def _copy(self) -> GuidanceReport:
        return replace(self, others=[], older=[])

    def _take(self, report: GuidanceReport) -> None:
        for each in fields(report):
            setattr(self, each.name, getattr(report, each.name))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def summary(self) -> str:
        """A few lines for people, who count steps from 1."""
        guided = _from_one(self.guided) or "none"
        lines = [f"state: {self.state}"]
        if self.settings.get("guide") != "estimate":
            lines.append(f"guided steps: {guided} of {self.num_steps}")
        done = [step.iterations for step in self.steps if step.iterations]
        if done:
            first, last = done[0][0], done[-1][-1]
            lines.append(f"loss: {first.loss:.4g} -> {last.loss:.4g}")
            if first.phi is not None and last.phi is not None:
                lines.append(f"phi: {first.phi:.3f} -> {last.phi:.3f}")
            lines.append(f"token drift: {last.drift:.4g} (cosine {last.cosine:.4f})")
        plain = self.sampling_seconds - self.seconds
        times = f" ({self.sampling_seconds / plain:.2f} times the rest)" if self.seconds > 0 and plain > 0 else ""
        lines.append(f"seconds: {self.seconds:.1f} optimising, {self.sampling_seconds:.1f} in all{times}")
        if self.peak_memory is not None:
            lines.append(f"peak memory: {self.peak_memory / 2**30:.2f} GiB")
        lines += [f"step {step.step + 1} was not guided: {step.fallback}" for step in self.steps if step.fallback]
        lines += [f"steps leapt over by the sampler: {_from_one(self.missed)}"] if self.missed else []
        lines += [self.correction.summary()] if self.correction is not None else []
        if self.others:
            lines.append(
                f"The model was sampled {1 + len(self.others)} times; this is one of them. Connect a sampler's latent "
                "to MotionPrompt Report to see that sampling's own."
            )
        return "\n".join(lines + self.notes)

    def brief(self) -> str:
        """What of the summary has room under a node: two lines, and one if anything is amiss."""
        done = [step.iterations for step in self.steps if step.iterations]
        estimate_alone = self.settings.get("guide") == "estimate"
        counts = [] if estimate_alone else [f"{len(self.guided)} of {self.num_steps} steps guided"]
        counts += [] if self.correction is None else [f"estimate corrected {len(self.correction.steps)} times"]
        lines = [f"{self.state}: {', '.join([*counts, f'{self.sampling_seconds:.0f} s'])}"]
        if done:
            first, last = done[0][0], done[-1][-1]
            phi = "" if first.phi is None or last.phi is None else f" | phi {first.phi:.3f} -> {last.phi:.3f}"
            lines.append(f"loss {first.loss:.4g} -> {last.loss:.4g}{phi} | drift {last.drift:.4g}")
        amiss = sum(step.fallback is not None for step in self.steps) + len(self.notes) + bool(self.missed)
        if amiss:
            lines.append(f"{amiss} {'remark' if amiss == 1 else 'remarks'}: see the picture, or the output summary")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Plain numbers and strings for people: steps are counted from 1, flow is given by its mean speed in pixels."""
        values = {key: value for key, value in self.__dict__.items() if key not in ("steps", "flow", "others", "older")}
        values["correction"] = None if self.correction is None else self.correction.to_dict()
        values["seconds"] = self.seconds
        values["planned"], values["missed"] = _from_one(self.planned), _from_one(self.missed)
        values["steps"] = [step.to_dict() for step in self.steps]
        values["flow"] = [
            {
                "step": sample.step + 1,
                "pair": list(sample.pair),
                "mean_speed_before": float(torch.linalg.vector_norm(sample.before.float(), dim=0).mean()),
                "mean_speed_after": float(torch.linalg.vector_norm(sample.after.float(), dim=0).mean()),
            }
            for sample in self.flow
        ]
        return values

    def to_json(self) -> str:
        """JSON, strictly: a NaN or infinity, as a failed step may hold, becomes null."""
        return json.dumps(_finite(self.to_dict()), indent=2, allow_nan=False)


def _from_one(steps: list[int]) -> list[int]:
    return [step + 1 for step in steps]


def _finite(value: object) -> object:
    if isinstance(value, float) and value - value != 0:
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
