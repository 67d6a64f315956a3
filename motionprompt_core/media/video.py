"""Clips in and out of files, as (T, 3, H, W) tensors in [0, 1]. PyAV and Pillow do the coding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.error import FFmpegError
from PIL import Image, ImageSequence, UnidentifiedImageError
from torch import Tensor

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_ANIMATED = (".webp", ".gif", ".png", ".apng")


def read_video(
    path: str | Path,
    *,
    start: int = 0,
    length: int | None = None,
    step: int = 1,
    size: int | None = None,
) -> tuple[Tensor, float]:
    """Read frames of a video file, an animated image, or a folder of images (in the order of their names).

    Args:
        path: anything that PyAV or Pillow reads.
        start: first frame.
        length: how many frames at most; None reads to the end, so mind the memory.
        step: take every step-th frame.
        size: shorter side to scale to, px; None keeps it.

    Returns:
        (T, 3, H, W) float32 in [0, 1], and the frames a second of what was read (8 where the source has none).

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: it cannot be decoded, has no frame in the range, or frames of several sizes.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"video: there is no file or folder {path}.")
    if start < 0 or step < 1 or (length is not None and length < 1):
        raise ValueError(f"video: start {start}, length {length}, step {step}; expected start >= 0, the others >= 1.")
    frames: list[np.ndarray] = []
    rate = 8.0
    with _decoding(path):
        for index, (image, fps) in enumerate(_images(path)):
            rate = fps
            if index < start or (index - start) % step:
                continue
            frames.append(np.asarray(_scaled(image, size)))
            if len(frames) == length:
                break
    if not frames:
        raise ValueError(f"video {path} has no frame from {start} on. Give a longer video or a smaller start.")
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"video {path} has frames of several sizes. Scale them to one.")
    return torch.from_numpy(np.stack(frames)).movedim(-1, 1).float().div(255), rate / step


def frame_rate(path: str | Path) -> float:
    """Frames a second of a video file or an animated image (8 where it does not say); errors as `read_video`'s."""
    path = Path(path)
    with _decoding(path):
        for _, fps in _images(path):
            return fps
    raise ValueError(f"video {path} has no frame. Leave it out.")


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
    if suffix in _ANIMATED:
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


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turns what the decoders raise into one error that names the file."""
    try:
        yield
    except (FFmpegError, UnidentifiedImageError, OSError, EOFError, IndexError) as error:
        raise ValueError(f"video {path} cannot be decoded ({error}). Damaged or no video: leave it out.") from error


def _images(path: Path) -> Iterator[tuple[Image.Image, float]]:
    """The frames one by one, each with the source's frames a second."""
    if path.is_dir():
        for file in sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES):
            with Image.open(file) as image:
                yield image.convert("RGB"), 8.0
    elif path.suffix.lower() in _ANIMATED:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                yield frame.convert("RGB"), 1000 / (frame.info.get("duration") or 125)
    else:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"video {path} has no picture. Leave it out.")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or 8)
            for frame in container.decode(stream):
                yield frame.to_image(), fps


def _scaled(image: Image.Image, size: int | None) -> Image.Image:
    if size is None or min(image.size) == size:
        return image
    factor = size / min(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)
