"""Folders of pictures as clips: the order of their names, and whether they are the frames of one clip at all."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".avif")
_UNEVEN = 0.25  # a step between two frames' numbers that differs so much from the median is a gap


def frame_files(folder: Path) -> list[Path]:
    """The images of a folder, frame_2 before frame_10.

    Raises:
        ValueError: they are several sequences, hold a number twice, or lack frames in between.
    """
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."]
    files.sort(key=natural)
    _check_one_sequence(folder, files)
    return files


def natural(path: Path) -> tuple[list[Any], str]:
    """Sorts names by the numbers in them."""
    # macOS and others write one name in several ways (e and an accent, or one letter).
    parts = re.split(r"(\d+)", unicodedata.normalize("NFC", path.name).casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _check_one_sequence(folder: Path, files: Sequence[Path]) -> None:
    """Frames are named alike but for one number, which grows evenly; names without numbers are taken as they are."""
    kinds: dict[str, list[tuple[list[int], Path]]] = defaultdict(list)
    for file in files:
        stem = unicodedata.normalize("NFC", file.stem).casefold()
        kinds[re.sub(r"\d+", "#", stem)].append(([int(part) for part in re.findall(r"\d+", stem)], file))
    if len(kinds) == len(files):  # words, or one file
        return
    if len(kinds) > 1:
        most = sorted(kinds.values(), key=len, reverse=True)
        raise _mixed(folder, most[0][0][1], most[1][0][1])
    columns = zip(*(numbers for kind in kinds.values() for numbers, _ in kind), strict=True)
    varying = [column for column in columns if len(set(column)) > 1]
    # take1_01, take2_01: the last number that counts comes again. The same frame twice: 1.png, 01.png, 1.jpg.
    first: dict[int, Path] = {}
    for number, file in zip(varying[-1] if varying else [0] * len(files), files, strict=True):
        if first.setdefault(number, file) is not file:
            raise _mixed(folder, first[number], file)
    if len(varying) == 1:
        _check_gaps(folder, list(zip(varying[0], files, strict=True)))


def _check_gaps(folder: Path, frames: Sequence[tuple[int, Path]]) -> None:
    steps = [after - before for (before, _), (after, _) in zip(frames, frames[1:], strict=False)]
    usual = median(steps)
    for step, (_, before), (_, after) in zip(steps, frames, frames[1:], strict=False):
        if abs(step - usual) > _UNEVEN * usual:
            raise ValueError(
                f"video {folder} is uneven: from {before.name} to {after.name} its number grows by {step}, elsewhere "
                f"by {usual:g}, as if frames were missing. Complete it, or number the frames through."
            )


def _mixed(folder: Path, first: Path, second: Path) -> ValueError:
    return ValueError(
        f"video {folder} holds several sequences of pictures, as {first.name} and {second.name} show. Put each into a "
        "folder of its own, or number the frames through."
    )
