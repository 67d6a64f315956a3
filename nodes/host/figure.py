"""Figures of matplotlib, which is optional, as tensors."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import folder_paths
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLACE = "MPLCONFIGDIR"


def new_figure(width: float, height: float, dpi: int = 100) -> Figure:
    """An empty figure, inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        with _caches_in_comfyui():
            from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("The plot needs matplotlib: pip install matplotlib, then restart.") from error
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


@contextmanager
def _caches_in_comfyui() -> Iterator[None]:
    """Imported for the first time, matplotlib makes folders and a list of fonts in the user's home."""
    before = os.environ.get(_PLACE)
    os.environ[_PLACE] = os.path.join(folder_paths.get_user_directory(), "__motionprompt", "matplotlib")
    try:
        yield
    finally:
        os.environ.pop(_PLACE)
        os.environ.update({} if before is None else {_PLACE: before})


def drawn(draw: Callable[[], Tensor], text: str) -> Tensor:
    """What `draw` makes; without matplotlib the text alone, so that nobody loses a video for want of its curves."""
    try:
        return draw()
    except ImportError as error:
        return written(f"{text}\n\n{error}")


def written(text: str, width: int = 900) -> Tensor:
    """A text as a picture, (H, W, 3) in [0, 1], dark on white; long lines are broken."""
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, width // 8) or [""]]
    image = Image.new("L", (width, 20 * (len(lines) + 1)), 255)
    ImageDraw.Draw(image).multiline_text((10, 10), "\n".join(lines), 30, ImageFont.load_default(14))
    values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return values.view(image.height, image.width, 1).float().expand(-1, -1, 3) / 255


def pixels(figure: Figure) -> Tensor:
    """The picture, (H, W, 3) in [0, 1]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    values = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    columns, rows = canvas.get_width_height()
    return values.reshape(rows, columns, 4)[..., :3].float() / 255
