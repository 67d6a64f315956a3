"""Clips into files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from torch import Tensor

ANIMATED_SUFFIXES = (".webp", ".gif", ".png", ".apng")


def write_video(frames: Tensor, path: str | Path, fps: float = 8.0) -> None:
    """Write (T, 3, H, W) or (T, H, W, 3) frames in [0, 1]: .webp, .gif, .png (animated), or .mp4 and the like (H.264).

    Raises:
        ValueError: wrong shape, or a suffix that no encoder is known for.
    """
    path = Path(path)
    if frames.ndim != 4 or 3 not in (frames.shape[1], frames.shape[-1]):
        raise ValueError(f"video: expected frames (T, 3, H, W) or (T, H, W, 3), got {tuple(frames.shape)}.")
    frames = frames if frames.shape[-1] == 3 else frames.movedim(1, -1)
    pixels = frames.detach().float().clamp(0, 1).mul(255).round().byte().cpu().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    if suffix in ANIMATED_SUFFIXES:
        first, *rest = [Image.fromarray(image) for image in pixels]
        options: dict[str, Any] = {"quality": 90, "method": 4} if suffix == ".webp" else {}
        first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, **options)
    elif suffix in (".mp4", ".mov", ".mkv"):
        _write_h264(pixels, path, fps)
    else:
        raise ValueError(f"video: cannot write {path.name}, expected .webp, .gif, .png, .mp4, .mov or .mkv.")


def _write_h264(pixels: np.ndarray, path: Path, fps: float) -> None:
    height, width = pixels.shape[1:3]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        # Half-resolution colour needs even sizes; odd ones keep full colour.
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"
        stream.options = {"crf": "16"}
        for image in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
