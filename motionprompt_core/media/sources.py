"""Pictures out of files, one by one: upright, in 8 bits, with square pixels, and with the moment each is shown.

PyAV and Pillow do the decoding. What cannot be read right is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".avi", ".mkv", ".m4v", ".gif", ".apng")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
ANIMATED_SUFFIXES = (".webp", ".gif", ".png", ".apng")
MAX_PIXELS = 64 * 2**20  # twice an 8K frame
MAX_ASPECT = 20
FOLDER_RATE = 8.0  # folders of images do not say
_ODD = 0.25  # an interval that differs so much from the median is odd, ...
_FEW = 0.1  # ... and so small a share of odd ones is a title or an end card, not a variable rate


@dataclass(frozen=True)
class Timing:
    """When the frames of a source are shown.

    Attributes:
        rate: frames a second, of the intervals that are alike.
        steady: the intervals are alike, but for a few; else counting frames does not tell time.
    """

    rate: float
    steady: bool

    @classmethod
    def of(cls, intervals: list[float], fallback: float) -> Timing:
        """From the seconds between one frame and the next; `fallback` is the rate where there are none."""
        intervals = [interval for interval in intervals if interval > 0]
        if not intervals:
            return cls(fallback, True)
        middle = median(intervals)
        alike = [interval for interval in intervals if abs(interval - middle) <= _ODD * middle]
        return cls(len(alike) / sum(alike), len(intervals) - len(alike) <= _FEW * len(intervals))


def timing(path: Path, folder_rate: float = FOLDER_RATE) -> Timing:
    """Frame rate of a video file, an animated image or a folder of images, without decoding more than it needs.

    Raises:
        ValueError: it cannot be decoded.
    """
    if path.is_dir():
        return Timing(folder_rate, True)
    with decoding(path):
        if path.suffix.lower() in ANIMATED_SUFFIXES:
            with _opened(path) as image:
                # The last picture's own duration is how long an end card stays, not an interval.
                return Timing.of([seconds for _, seconds in _animation(image)][:-1], FOLDER_RATE)
        with av.open(str(path)) as container:
            stream = _picture_stream(container, path)
            base = float(stream.time_base or 0)
            shown = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
            rate = float(stream.average_rate or FOLDER_RATE)
            return Timing.of([(b - a) * base for a, b in zip(shown, shown[1:], strict=False)], rate)


def pictures(path: Path) -> Iterator[tuple[Image.Image, float | None]]:
    """The frames (RGB) one by one, each with the second at which it is shown; None in a folder.

    Raises:
        ValueError: no regular file, no picture in it, or a frame that is damaged, too large or too thin.
    """
    with decoding(path):
        if path.is_dir():
            for file in frame_files(path):
                with decoding(file), _opened(file) as image:
                    yield _rgb(ImageOps.exif_transpose(image), file), None
        elif path.suffix.lower() in ANIMATED_SUFFIXES:
            with _opened(path) as image:
                now = 0.0
                for frame, seconds in _animation(image):
                    yield _rgb(frame, path), now
                    now += seconds
        else:
            yield from _video(path)


def frame_files(folder: Path) -> list[Path]:
    """The images of a folder, frame_2 before frame_10."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."]
    return sorted(files, key=natural)


def natural(path: Path) -> tuple[list[Any], str]:
    """Sorts names by the numbers in them."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turns what the decoders raise into one error that names the file."""
    try:
        if not path.is_dir() and not path.is_file():  # opening a named pipe would wait for ever
            raise ValueError(f"video {path} is no regular file (a pipe or a device). Leave it out.")
        yield
    except Image.DecompressionBombError as error:
        raise ValueError(f"video {path} is too large ({error}). Leave it out.") from error
    except (FFmpegError, UnidentifiedImageError, OSError, EOFError, IndexError, SyntaxError) as error:
        raise ValueError(f"video {path} cannot be decoded ({error}). Damaged or no video: leave it out.") from error


def _opened(path: Path) -> Image.Image:
    """An image whose header has been read and found to be of a size that can be handled."""
    image = Image.open(path)
    try:
        _check_size(image.width, image.height, path)
    except ValueError:
        image.close()
        raise
    return image


def _check_size(width: int, height: int, path: Path) -> None:
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise ValueError(
            f"video {path} has frames of {width}x{height} px, expected at most {MAX_PIXELS // 2**20} megapixels. Scale "
            "it down, or leave it out."
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"video {path} has frames of {width}x{height} px, expected sides of at most {MAX_ASPECT} to 1. Crop it, or "
            "leave it out."
        )


def _animation(image: Image.Image) -> Iterator[tuple[Image.Image, float]]:
    """Pictures, and for how many seconds each is shown."""
    for frame in ImageSequence.Iterator(image):
        frame.load()  # WebP tells the duration of what it has decoded
        yield frame, (frame.info.get("duration") or 1000 / FOLDER_RATE) / 1000


def _picture_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise ValueError(f"video {path} has no picture. Leave it out.")
    stream = container.streams.video[0]
    _check_size(stream.width, stream.height, path)
    return stream


def _video(path: Path) -> Iterator[tuple[Image.Image, float | None]]:
    with av.open(str(path)) as container:
        stream = _picture_stream(container, path)
        aspect = stream.sample_aspect_ratio or Fraction(1)  # 0 where the file does not say
        first: float | None = None
        for frame in container.decode(stream):
            image = _shown(frame)
            if aspect != 1:  # anamorphic: stored narrower or wider than shown
                image = image.resize((max(1, round(image.width * aspect)), image.height), Image.Resampling.LANCZOS)
                _check_size(image.width, image.height, path)
            if frame.rotation:  # counter-clockwise, as Pillow turns
                image = image.rotate(float(frame.rotation), expand=True)
            if first is None:
                first = frame.time
            yield image, None if frame.time is None or first is None else frame.time - first


def _shown(frame: Any) -> Image.Image:
    transparent = any(component.is_alpha for component in frame.format.components)
    return _rgb_over_black(Image.fromarray(frame.to_ndarray(format="rgba"))) if transparent else frame.to_image()


def _rgb_over_black(image: Image.Image) -> Image.Image:
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    """Eight bits a channel, what is transparent black. Pillow alone clips 16-bit and float pictures to white or black,
    and shows what is hidden below transparent pixels."""
    if image.has_transparency_data:
        return _rgb_over_black(image)
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image.convert("RGB")
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    top = 1.0 if image.mode == "F" else 65535.0
    if not (np.isfinite(values).all() and low >= 0 and high <= top):
        raise ValueError(
            f"video {path} has grey values from {low:g} to {high:g}, expected 0 to {top:g}. Save it with 8 bits a "
            "channel, or leave it out."
        )
    return Image.fromarray((values * (255 / top)).round().astype(np.uint8)).convert("RGB")
