"""Clips of a folder, made alike: same frame rate, same size, whatever the files are."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from ..media.sequences import IMAGE_SUFFIXES, natural
from ..media.sources import VIDEO_SUFFIXES, is_animation
from ..media.video import read_video

# Far above what anybody reads; settings may come out of a file.
_MOST = dict(fps=1000, folder_fps=1000, max_frames=100_000, size=4096, pairs=100_000, grid=1024, flows=4)


@dataclass(frozen=True)
class Frames:
    """A clip in memory at the frame rate wanted, (T, 3, H, W) in [0, 1]; `name` is for messages."""

    name: str
    video: Tensor


@dataclass(frozen=True)
class ClipSettings:
    """How clips are read, and which pairs of frames are looked at; the same for real and generated clips.

    What one side has and the other has not, a network finds sooner than motion. So: `fps` closes the shortcut of the
    frame rate, `size` that of resolution and aspect ratio, the removal of black borders that of letterboxing,
    `recompress` that of codec and quality.

    Attributes:
        fps: frames a second that clips are thinned out to, as near as whole steps come. AnimateDiff's videos have 8.
        folder_fps: frames a second of folders of images, which do not say.
        max_frames: frames read of each clip, after thinning, from its beginning.
        size: frames are scaled to this shorter side, then cut to the square in the middle, px.
        gaps: distances of the two frames of a pair, after thinning.
        pairs: pairs of frames per clip, drawn at random.
        grid: side of the square that flows are kept at, px.
        recompress: put the frames, once they have their size, through JPEG of a quality drawn for each clip.
        flows: how many in a row are looked at together (`DiscriminatorConfig.flows`); a pair is then a row of frames.
    """

    fps: float = 8.0
    folder_fps: float = 24.0
    max_frames: int = 32
    size: int = 256
    gaps: tuple[int, ...] = (1, 2, 4)
    pairs: int = 12
    grid: int = 128
    recompress: bool = True
    flows: int = 1

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value, rate = getattr(self, name), name.endswith("fps")
            if isinstance(value, bool) or not isinstance(value, (int, float) if rate else int) or not 0 < value <= most:
                raise ValueError(f"clips: {name} is {value!r}, expected a number above 0 and up to {most}.")
        most = (self.max_frames - 1) // self.flows
        if (
            not isinstance(self.gaps, tuple)
            or not self.gaps
            or not all(isinstance(gap, int) and 1 <= gap <= most for gap in self.gaps)
        ):
            raise ValueError(f"clips: gaps are {self.gaps}, expected one or more from 1 to {most}.")

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        if self.flows == 1:  # the name of a clip's cache file was made without it
            del values["flows"]
        return values


def find_clips(folder: str | Path) -> list[Path]:
    """Videos, and folders of images, in `folder` and below, in the order of the numbers in their names.

    Images beside videos are no clip: they are previews of them, or videos of which every frame is the same. A file or
    folder that links lead to in several ways is found once.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no clip.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"clips: there is no folder {folder}. Give one that holds videos or folders of frames.")
    clips = list(_clips(folder, set()))
    if not clips:
        raise ValueError(
            f"clips: {folder} holds no clip. Expected videos ({', '.join(VIDEO_SUFFIXES)}, animated .webp, .png, .tif "
            "and .avif), or folders of images in the order of their names."
        )
    return clips


def _clips(folder: Path, seen: set[str]) -> Iterator[Path]:
    seen.add(_target(folder))
    try:
        entries = sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=natural)
    except OSError:  # not ours to read: whoever reads it as a clip says so
        yield folder
        return
    stills = {entry for entry in entries if _is_still(entry)}
    videos = {entry for entry in entries if entry.suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES} - stills
    if stills and not videos:
        yield folder
    for entry in entries:
        target = _target(entry)
        if target in seen:
            continue
        if entry.is_dir():
            yield from _clips(entry, seen)
        elif entry in videos:
            seen.add(target)
            yield entry


def _target(path: Path) -> str:
    """Where a path leads to; a link that leads to itself stays what it is."""
    return os.path.realpath(path)


def check_apart(real: Sequence[Path | Frames], generated: Sequence[Path | Frames]) -> None:
    """Raise ValueError if a file is on both sides, as when one folder lies inside the other."""
    sides = [{_target(clip) for clip in clips if isinstance(clip, Path)} for clips in (real, generated)]
    both = sorted(sides[0] & sides[1])
    if both:
        raise ValueError(
            f"clips: {len(both)} clip(s) are on both sides, the first is {both[0]}. Keep real and generated clips in "
            "folders of which neither holds the other."
        )


def _is_still(path: Path) -> bool:
    """Whether a file is one picture: many formats hold animations, too. A damaged one is left to the reader."""
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES or not path.is_file():
        return False
    if suffix in (".jpg", ".jpeg", ".bmp"):
        return True
    try:
        with Image.open(path) as image:
            return not is_animation(image)
    except Exception:  # damaged files make Pillow raise anything
        return suffix != ".webp"


def read_clip(clip: str | Path | Frames, settings: ClipSettings) -> Tensor:
    """Frames (T, 3, size, size) in [0, 1] of a video, a folder of images or frames, T at most `max_frames`.

    Raises:
        ValueError: it cannot be decoded, or has too few frames for the smallest gap.
    """
    if isinstance(clip, Frames):
        name, rate, video = clip.name, settings.fps, clip.video[: settings.max_frames].float()
    else:
        name = Path(clip).name
        video, rate = read_video(
            clip, length=settings.max_frames, fps=settings.fps, folder_fps=settings.folder_fps, size=settings.size
        )
    if len(video) <= settings.flows * min(settings.gaps):
        raise ValueError(
            f"clip {name} has {len(video)} frame(s) at {rate:.3g} frames a second, expected at least "
            f"{settings.flows * min(settings.gaps) + 1}. Leave it out, or raise fps."
        )
    return to_square(without_borders(video), settings.size)


def without_borders(video: Tensor, darkness: float = 0.06) -> Tensor:
    """Cuts off the rows and columns at the edges that are black in every frame (letterboxes), (T, 3, H, W).

    What would leave less than half of a side is a night with a light in it, and no letterbox: that side stays whole.
    """
    bright = video.amax(dim=(0, 1)) > darkness
    rows, columns = (_extent(bright.any(dim=dim)) for dim in (1, 0))
    return video[:, :, rows, columns]


def _extent(bright: Tensor) -> slice:
    """From the first bright place to the last, or everything if that is less than half."""
    places = bright.nonzero().flatten()
    if not len(places) or 2 * (places[-1] - places[0] + 1) < len(bright):
        return slice(None)
    return slice(int(places[0]), int(places[-1]) + 1)


def to_square(video: Tensor, size: int) -> Tensor:
    """The square in the middle of the frames, scaled to `size` px; (T, 3, H, W) -> (T, 3, size, size)."""
    side = min(video.shape[-2:])
    top, left = ((length - side) // 2 for length in video.shape[-2:])
    video = video[:, :, top : top + side, left : left + side]
    if side == size:
        return video
    return F.interpolate(video, size=(size, size), mode="bilinear", antialias=True).clamp(0, 1)


QUALITIES = (50, 90)


def compressed(video: Tensor, quality: int) -> Tensor:
    """Each frame (3, H, W) through JPEG of this quality."""
    frames = []
    for frame in (video * 255).round().byte().cpu():
        file = io.BytesIO()
        to_pil_image(frame).save(file, "JPEG", quality=quality)
        frames.append(pil_to_tensor(Image.open(file)))
    return torch.stack(frames).float() / 255
