"""Clips out of files, as (T, 3, H, W) tensors in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .sources import FOLDER_RATE, Timing, pictures, timing


def read_video(
    path: str | Path,
    *,
    start: int = 0,
    length: int | None = None,
    step: int = 1,
    fps: float | None = None,
    folder_fps: float = FOLDER_RATE,
    size: int | None = None,
) -> tuple[Tensor, float]:
    """Read frames of a video file, an animated image, or a folder of images (in the order of the numbers in their
    names).

    Args:
        path: anything that PyAV or Pillow reads.
        start: first frame.
        length: how many frames at most; None reads to the end, so mind the memory.
        step: take every step-th frame.
        fps: in place of `step`: thin out to so many frames a second, as near as whole steps come; a source of variable
            rate is thinned out by its time stamps.
        folder_fps: frames a second of a folder of images.
        size: shorter side to scale to, px; None keeps it.

    Returns:
        (T, 3, H, W) float32 in [0, 1], and the frames a second of what was read (8 where the source has none).

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: it cannot be decoded, has no frame in the range, or frames of several sizes.
    """
    frames, rate = stream_video(path, start=start, length=length, step=step, fps=fps, folder_fps=folder_fps, size=size)
    read = list(frames)
    if not read:
        raise ValueError(f"video {path} has no frame from {start} on. Give a longer video or a smaller start.")
    if len({frame.shape for frame in read}) > 1:
        raise ValueError(f"video {path} has frames of several sizes. Scale them to one.")
    video = torch.empty((len(read), 3, *read[0].shape[:2]))
    for index in range(len(read)):  # one by one, so that the bytes are never there twice
        video[index] = torch.from_numpy(read[index]).movedim(-1, 0).float().div(255)
        read[index] = np.empty(0)
    return video, rate


def stream_video(
    path: str | Path,
    *,
    start: int = 0,
    length: int | None = None,
    step: int = 1,
    fps: float | None = None,
    folder_fps: float = FOLDER_RATE,
    size: int | None = None,
) -> tuple[Iterator[np.ndarray], float]:
    """As `read_video`, the frames one by one as they are decoded: (H, W, 3) uint8."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"video: there is no file or folder {path}.")
    if start < 0 or step < 1 or (length is not None and length < 1) or (fps is not None and not fps > 0):
        raise ValueError(
            f"video: start {start}, length {length}, step {step}, fps {fps}; expected start >= 0, the others >= 1."
        )
    found = timing(path, folder_fps)
    images = ((np.array(_scaled(image, size)), seconds) for image, seconds in pictures(path))
    if fps is not None and not found.steady:
        return islice(_at_even_times(images, fps, found), start, None if length is None else start + length), fps
    step = max(1, round(found.rate / fps)) if fps is not None else step
    end = None if length is None else start + length * step
    return (frame for frame, _ in islice(images, start, end, step)), found.rate / step


def _at_even_times(
    images: Iterator[tuple[np.ndarray, float | None]], fps: float, found: Timing
) -> Iterator[np.ndarray]:
    """Frames at 0, 1/fps, 2/fps ... seconds. Between two frames they are mixed, so that what moves evenly goes on to
    do so; a picture that stays for longer than two of these steps is shown as long as it stays."""
    index, before, then = 0, None, 0.0
    for number, (image, seconds) in enumerate(images):
        now = number / found.rate if seconds is None else seconds
        while before is not None and index / fps < now and now > then:
            share = (index / fps - then) / (now - then)
            stays = share < 1e-3 or now - then > 2 / fps or before.shape != image.shape
            yield before if stays else (before * (1 - share) + image * share).round().astype(np.uint8)
            index += 1
        before, then = image, now
    if before is not None and index / fps <= then + 1e-6:
        yield before


def _scaled(image: Image.Image, size: int | None) -> Image.Image:
    if size is None or min(image.size) == size:
        return image
    factor = size / min(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)
