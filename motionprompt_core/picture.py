"""The report as a picture: losses, phi and drift over the iterations, and the flow of one pair before and after."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.utils import flow_to_image

from .report import FlowSample, GuidanceReport

DPI = 100


def draw_report(report: GuidanceReport) -> Tensor:
    """The picture, (H, W, 3) in [0, 1].

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("The report's picture needs matplotlib: pip install matplotlib, then restart.") from error
    figure = Figure(figsize=(12, 7), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    losses, phi, drift, before, after, text = figure.subplots(2, 3).flat
    iterations = [(step, iteration) for step in report.steps for iteration in step.iterations]
    _curves(losses, iterations, ("loss", "disc", "tv", "reg", "floor"), "loss and its parts")
    _curves(phi, iterations, ("phi",), "phi: how real the motion looks")
    _curves(drift, iterations, ("drift",), "token drift ||T - T0||")
    _flow(before, after, report.flow[-1] if report.flow else None)
    text.axis("off")
    text.text(0, 1, report.summary(), va="top", family="monospace", fontsize=8, wrap=True)
    canvas.draw()
    pixels = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    width, height = canvas.get_width_height()
    return pixels.reshape(height, width, 4)[..., :3].float() / 255


def _curves(axes, iterations, names: tuple[str, ...], title: str) -> None:
    axes.set_title(title, fontsize=10)
    for name in names:
        points = [(i, getattr(iteration, name)) for i, (_, iteration) in enumerate(iterations)]
        points = [(i, value) for i, value in points if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    if not axes.lines:
        axes.text(0.5, 0.5, "nothing to show", ha="center", transform=axes.transAxes)
        return
    for i, (step, _) in enumerate(iterations):
        if i == 0 or iterations[i - 1][0] is not step:
            axes.axvline(i - 0.5, color="0.85", zorder=0)
    axes.set_xlabel("iteration (grey lines: sampling steps)", fontsize=8)
    axes.legend(fontsize=8)


def _flow(before, after, sample: FlowSample | None) -> None:
    for axes, name in ((before, "before"), (after, "after")):
        axes.axis("off")
        axes.set_title(f"flow {name} the optimisation", fontsize=10)
    if sample is None:
        return
    before.set_title(f"flow before: step {sample.step}, frames {sample.pair[0]} and {sample.pair[1]}", fontsize=10)
    # One scale for both: flow_to_image divides by the greatest length it is given.
    both = flow_to_image(torch.cat((sample.before, sample.after), dim=-1).float())
    width = sample.before.shape[-1]
    before.imshow(both[..., :width].permute(1, 2, 0).numpy())
    after.imshow(both[..., width:].permute(1, 2, 0).numpy())
