"""Figures of matplotlib, which is optional, as tensors or files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def new_figure(width: float, height: float, dpi: int = 100) -> Any:
    """An empty figure, inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("The plot needs matplotlib: pip install matplotlib, then restart.") from error
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def pixels(figure: Any) -> Tensor:
    """The picture, (H, W, 3) in [0, 1]."""
    figure.canvas.draw()
    values = torch.frombuffer(bytearray(figure.canvas.buffer_rgba()), dtype=torch.uint8)
    columns, rows = figure.canvas.get_width_height()
    return values.reshape(rows, columns, 4)[..., :3].float() / 255


def save(figure: Any, path: Path) -> None:
    """Writes the picture, the same bytes for the same picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
