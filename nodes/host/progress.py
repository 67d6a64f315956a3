"""How far a pass over the schedule is: ComfyUI's progress bar, a preview, lines that say what is going on, a curve."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ...motionprompt_core.guidance.report import StepReport
from .comfy_types import Patcher, Previewer
from .report import GuidanceReport
from .status import NodeView

PREVIEW_FORMAT = "JPEG"


class TimeLeft:
    """Guesses the seconds that a pass still takes, from those that it took so far.

    Args:
        num_steps: length of the schedule. planned: the guided steps. iterations: per guided step.
        clock: seconds, from anywhere.
    """

    def __init__(
        self, num_steps: int, planned: Collection[int], iterations: int, clock: Callable[[], float] = time.perf_counter
    ):
        self.num_steps = num_steps
        self.planned = set(planned)
        self.iterations = iterations
        self.clock = clock
        self.last = clock()
        self.optimising: list[float] = []
        self.sampling: list[float] = []

    def _lap(self) -> float:
        before, self.last = self.last, self.clock()
        return self.last - before

    def iteration_done(self) -> None:
        self.optimising.append(self._lap())

    def step_done(self) -> None:
        self.sampling.append(self._lap())

    def seconds(self) -> float | None:
        """None before the first iteration. A plain step counts half an iteration until one has been timed."""
        if not self.optimising:
            return None
        iteration = sum(self.optimising) / len(self.optimising)
        step = sum(self.sampling) / len(self.sampling) if self.sampling else iteration / 2
        steps = max(0, self.num_steps - len(self.sampling))
        iterations = max(0, len(self.planned) * self.iterations - len(self.optimising))
        return steps * step + iterations * iteration


class Progress:
    """Progress of one pass.

    Args:
        report: whose steps are filled while the pass goes on. iterations: per guided step.
        previewer: makes pictures of latents, or None. view: the node to write on, or None.
    """

    def __init__(self, report: GuidanceReport, iterations: int, previewer: Previewer | None, view: NodeView | None):
        self.report = report
        self.iterations = iterations
        self.previewer = previewer
        self.view = view
        self.bar = comfy.utils.ProgressBar(report.num_steps)
        self.time_left = TimeLeft(report.num_steps, report.planned, iterations)
        self.x0: Tensor | None = None  # the latest estimate, for the preview

    @torch.no_grad()
    def iteration(self, step: StepReport) -> None:
        """After an optimiser iteration: the bar moves within the sampling step, and the estimate is shown."""
        self.time_left.iteration_done()
        done = len(step.iterations)
        preview = None
        if self.previewer is not None and self.x0 is not None:
            preview = self.previewer.decode_latent_to_preview_image(PREVIEW_FORMAT, self.x0)
        self.x0 = None
        # A guided step is its iterations and, after them, the sampler's own evaluation.
        share = round(step.step + done / (self.iterations + 1), 3)
        self.bar.update_absolute(share, self.report.num_steps, preview)
        if self.view is not None:
            self.view.show(self._lines(step), curves(self.report, step))

    def step_done(self) -> None:
        self.time_left.step_done()

    def _lines(self, step: StepReport) -> str:
        first, now = step.iterations[0], step.iterations[-1]
        phi = "" if now.phi is None or first.phi is None else f"phi {first.phi:.3f} -> {now.phi:.3f} | "
        where = f"step {step.step + 1} of {self.report.num_steps}, iteration {len(step.iterations)}/{self.iterations}"
        left = self.time_left.seconds()
        after = "" if left is None else f" | {clock_time(left)} left"
        return f"{where}{after}\n{phi}drift {now.drift:.4f}"


def curves(report: GuidanceReport, running: StepReport | None = None) -> dict[str, list[float | None]]:
    """Loss, phi and step of every iteration so far, with those of a step that is not in the report yet; where there are
    none, by how much the estimate was changed at each corrected step."""
    steps = [*report.steps, *([running] if running is not None else [])]
    points = [(iteration.loss, iteration.phi, step.step) for step in steps for iteration in step.iterations]
    if not points and report.correction is not None:
        return {"change": [step.change for step in report.correction.steps]}
    return {name: [point[at] for point in points] for at, name in enumerate(("loss", "phi", "step"))}


def previewer_of(patcher: Patcher) -> Previewer | None:
    """ComfyUI's previewer for a model, by the user's choice of preview method; None if previews are off."""
    return latent_preview.get_previewer(patcher.load_device, patcher.model.latent_format)


def clock_time(seconds: float) -> str:
    """1:05, or 1:02:05."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
