"""Pictures of numbers: a guidance report with the flow of a pair before and after, metrics, a training's curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchvision.utils import flow_to_image

from ...motionprompt_core.discriminator.state import EpochResult
from ...motionprompt_core.guidance.report import FlowSample
from ...motionprompt_core.metrics.comparison import Clip, table
from .correction_report import EstimateReport
from .figure import new_figure, pixels
from .report import GuidanceReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_report(report: GuidanceReport) -> Tensor:
    """The picture, (H, W, 3) in [0, 1].

    Raises:
        ImportError: matplotlib is not installed.
    """
    if report.correction is not None and not any(step.iterations for step in report.steps):
        return _draw_correction(report, report.correction)
    figure = new_figure(12, 7)
    losses, phi, drift, before, after, text = figure.subplots(2, 3).flat
    iterations = [(step, iteration) for step in report.steps for iteration in step.iterations]
    parts = [{"loss": iteration.loss, **iteration.losses} for _, iteration in iterations]
    starts = [i for i, (step, _) in enumerate(iterations) if i == 0 or iterations[i - 1][0] is not step]
    _curves(losses, parts, starts, "loss and its terms, unweighted")
    _curves(phi, [{"phi": iteration.phi} for _, iteration in iterations], starts, "phi: how real the motion looks")
    _curves(drift, [{"drift": iteration.drift} for _, iteration in iterations], starts, "token drift ||T - T0||")
    _flow(before, after, report.flow[-1] if report.flow else None)
    text.axis("off")
    text.text(0, 1, report.summary(), va="top", family="monospace", fontsize=8, wrap=True)
    return pixels(figure)


def _draw_correction(report: GuidanceReport, correction: EstimateReport) -> Tensor:
    """Of a run in which the estimate alone was guided: how much it was changed, step by step."""
    figure = new_figure(12, 3.5)
    changes, text = figure.subplots(1, 2)
    changes.bar([step.step + 1 for step in correction.steps], [step.change for step in correction.steps], width=0.6)
    changes.set_xlim(0.5, max(1, correction.num_steps) + 0.5)
    changes.set_title("what was steadied in the estimate, as a share of its latents", fontsize=10)
    changes.set_xlabel("sampling step", fontsize=8)
    text.axis("off")
    text.text(0, 1, report.summary(), va="top", family="monospace", fontsize=8, wrap=True)
    return pixels(figure)


def draw_metrics(clips: Sequence[Clip]) -> Tensor:
    """Change and speed along the videos, and the table, (H, W, 3) in [0, 1].

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(12, 7)
    grid = figure.add_gridspec(2, 2)
    change, speed, text = (
        figure.add_subplot(grid[0, 0]),
        figure.add_subplot(grid[0, 1]),
        figure.add_subplot(grid[1, :]),
    )
    for clip in clips:
        label = f"{clip.name} (no motion)" if clip.measured.metrics.frozen else clip.name
        change.plot(clip.measured.change, marker="o", markersize=3, label=label)
        speed.plot(clip.measured.speed, marker="o", markersize=3, label=label)
    change.set_title("change from each frame to the next (mean, 0 to 1)", fontsize=10)
    speed.set_title("speed of the fastest 5 % of pixels (px per frame)", fontsize=10)
    for axes in (change, speed):
        axes.set_xlabel("frame", fontsize=8)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    text.axis("off")
    text.text(0, 1, table(clips), va="top", family="monospace", fontsize=8)
    return pixels(figure)


def draw_training(history: Sequence[EpochResult]) -> Tensor:
    """Losses and what was measured on held-out clips, epoch by epoch, (H, W, 3) in [0, 1].

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(8, 3.5)
    losses, measured = figure.subplots(1, 2)
    epochs = [epoch.epoch + 1 for epoch in history]
    quality = {"auroc": "AUROC", "accuracy": "accuracy", "calibration_error": "calibration error"}
    for axes, title, names in (
        (losses, "loss, nats", {"train_loss": "training", "val_loss": "held-out clips"}),
        (measured, "on held-out clips", quality),
    ):
        for name, label in names.items():
            axes.plot(epochs, [getattr(epoch, name) for epoch in history], marker="o", markersize=3, label=label)
        if history:
            best = min(history, key=lambda epoch: epoch.val_loss)
            axes.axvline(best.epoch + 1, color="0.85", zorder=0)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch (grey line: the best)", fontsize=8)
        axes.legend(fontsize=8)
    measured.set_ylim(0, 1)
    return pixels(figure)


def _curves(axes: Axes, points: Sequence[Mapping[str, float | None]], starts: Sequence[int], title: str) -> None:
    """One curve a name, over the iterations; grey lines where a sampling step starts."""
    axes.set_title(title, fontsize=10)
    for name in dict.fromkeys(name for point in points for name in point):
        known = [(i, point[name]) for i, point in enumerate(points) if point.get(name) is not None]
        if known:
            axes.plot(*zip(*known, strict=True), marker="o", markersize=3, label=name)
    if not axes.lines:
        axes.text(0.5, 0.5, "nothing to show", ha="center", transform=axes.transAxes)
        return
    for i in starts:
        axes.axvline(i - 0.5, color="0.85", zorder=0)
    axes.set_xlabel("iteration (grey lines: sampling steps)", fontsize=8)
    axes.legend(fontsize=8)


def _flow(before: Axes, after: Axes, sample: FlowSample | None) -> None:
    for axes, name in ((before, "before"), (after, "after")):
        axes.axis("off")
        axes.set_title(f"flow {name} the optimisation", fontsize=10)
    if sample is None:
        return
    before.set_title(f"flow before: step {sample.step + 1}, frames {sample.pair[0]} and {sample.pair[1]}", fontsize=10)
    # One scale for both: flow_to_image divides by the greatest length it is given.
    both = flow_to_image(torch.cat((sample.before, sample.after), dim=-1).float())
    width = sample.before.shape[-1]
    before.imshow(both[..., :width].permute(1, 2, 0).numpy())
    after.imshow(both[..., width:].permute(1, 2, 0).numpy())
