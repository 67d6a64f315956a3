"""Pictures out of files, one by one: upright, in 8 bits, with square pixels, and with the moment each is shown.

PyAV and Pillow do the decoding. What cannot be read right is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image, ImageOps, ImageSequence

from .sequences import IMAGE_SUFFIXES, frame_files
from .streams import check_size, decoded, name, picture_stream, rgb_over_black

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".ogv", ".gif", ".apng"),
    *(".mpg", ".mpeg", ".vob", ".ts", ".mts", ".m2ts", ".mxf", ".dv"),
)
PILLOW_SUFFIXES = (*IMAGE_SUFFIXES, ".gif", ".apng")
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
        if path.suffix.lower() in PILLOW_SUFFIXES:
            with _opened(path) as image:
                # The last picture's own duration is how long an end card stays, not an interval.
                return Timing.of([seconds for _, seconds in _animation(image)][:-1], FOLDER_RATE)
        with av.open(name(path)) as container:
            stream = picture_stream(container, path)
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
                    if is_animation(image):
                        raise ValueError(
                            f"video {file} holds several pictures, in a folder of single frames. Move it out of there."
                        )
                    yield _rgb(ImageOps.exif_transpose(image), file), None
        elif path.suffix.lower() in PILLOW_SUFFIXES:
            with _opened(path) as image:
                now = 0.0
                for frame, seconds in _animation(image):
                    yield _rgb(frame, path), now
                    now += seconds
        else:
            yield from decoded(path)


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turns what the decoders raise into one error that names the file."""
    try:
        if not path.is_dir() and not path.is_file():  # opening a named pipe would wait for ever
            raise ValueError(f"video {path} is no regular file (a pipe or a device). Leave it out.")
        yield
    except Image.DecompressionBombError as error:
        raise ValueError(f"video {path} is too large ({error}). Leave it out.") from error
    except Exception as error:  # damaged files make decoders raise anything, struct.error as well
        ours = str(error).startswith(f"video {path}")
        # FFmpeg's own MemoryError is of a size in a damaged header.
        if ours or (isinstance(error, MemoryError) and not isinstance(error, FFmpegError)):
            raise
        raise ValueError(f"video {path} cannot be decoded ({error}). Damaged or no video: leave it out.") from error


def _opened(path: Path) -> Image.Image:
    """An image whose header has been read and found to be of a size that can be handled."""
    image = Image.open(path)
    try:
        check_size(image.width, image.height, path)
    except ValueError:
        image.close()
        raise
    return image


def is_animation(image: Image.Image) -> bool:
    """Whether it holds several pictures that follow each other, and not one with a preview (MPO, of phones)."""
    return bool(getattr(image, "is_animated", False)) and image.format != "MPO"


def _animation(image: Image.Image) -> Iterator[tuple[Image.Image, float]]:
    """Pictures, and for how many seconds each is shown."""
    if not is_animation(image):
        yield ImageOps.exif_transpose(image), 1 / FOLDER_RATE
        return
    cover = bool(getattr(image, "default_image", False))  # for viewers that know no APNG, and no part of it
    for frame in islice(ImageSequence.Iterator(image), int(cover), None):
        frame.load()  # WebP tells the duration of what it has decoded
        seconds = (frame.info.get("duration") or 0) / 1000
        if image.format == "GIF" and seconds <= 0.01:  # what older programs wrote for "fast"; browsers show it so
            seconds = 0.1
        yield frame, seconds or 1 / FOLDER_RATE


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    """Eight bits a channel, what is transparent black. Pillow alone clips 16-bit and float pictures to white or black,
    and shows what is hidden below transparent pixels."""
    if image.has_transparency_data:
        return rgb_over_black(image)
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
