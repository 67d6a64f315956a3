"""Before and After: two videos side by side, each over a slice through time, in which shake and flicker show.

A slice is one line of pixels, frame by frame: time goes downward. What moves evenly is a straight band in it, what
shakes a ragged one, and flicker is stripes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from comfy_api.latest import io
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from .host.schema import make, schema

# Small videos are enlarged to this many pixels in width or so; slices are about this share of the height.
WIDTH, SHARE = 256, 0.5
GAP, TITLE = 8, 24
PAPER, MARK = 1.0, (0.95, 0.2, 0.2)


class BeforeAfter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptBeforeAfter",
            display_name="Before and After",
            description="Two videos side by side, each over a slice through time: one line of its pixels, frame below "
            "frame. What moves evenly is a straight band there, shake makes it ragged, flicker striped. For Save "
            "Animated WEBP or Create Video.",
            search_aliases=["motionprompt", "compare videos", "side by side", "time slice"],
            inputs=[
                make(io.Image.Input, "before", tooltip="The video on the left, for instance without guidance."),
                make(io.Image.Input, "after", tooltip="The video on the right. If one is smaller, it is scaled."),
            ],
            outputs=[
                make(
                    io.Image.Output,
                    display_name="images",
                    tooltip="The comparison, as many frames as the shorter video has. The red line is where the slices "
                    "are taken: where the left video changes most.",
                )
            ],
        )

    @classmethod
    def execute(cls, before: Any, after: Any) -> io.NodeOutput:
        videos = [video[..., :3].movedim(-1, 1) for video in (before, after)]
        return io.NodeOutput(before_after(*videos).movedim(1, -1))


def before_after(before: Tensor, after: Tensor, titles: tuple[str, str] = ("before", "after")) -> Tensor:
    """The comparison (T, 3, H', W'), which runs as long as the shorter of the two.

    Args:
        before, after: (T, 3, H, W), RGB in [0, 1]; the smaller is scaled to the other's size. titles: above each.

    Raises:
        ValueError: one has no frames.
    """
    length = min(len(before), len(after))
    if length == 0:
        raise ValueError("Before and After: one video has no frames. Connect two that have some.")
    size = max((video.shape[2:] for video in (before, after)), key=lambda size: size[0] * size[1])
    first, second = (f"{title}{_scale(video, size)}" for title, video in zip(titles, (before, after), strict=True))
    before, after = (F.interpolate(video[:length].clamp(0, 1), size, mode="bilinear") for video in (before, after))
    line = busiest_line(before)
    return torch.cat([_column(before, line, first), _column(after, line, second)], dim=3)


def _scale(video: Tensor, size: Sequence[int]) -> str:
    """What the title says of a video that is scaled to a size."""
    return "" if video.shape[2:] == size else f" (from {video.shape[3]} x {video.shape[2]})"


def busiest_line(video: Tensor) -> tuple[int, int]:
    """The line through the picture along which most changes over time: (2, row) or (3, column)."""
    change = video.var(dim=0, unbiased=False).mean(0)
    rows, columns = change.mean(1), change.mean(0)
    return (2, int(rows.argmax())) if rows.max() >= columns.max() else (3, int(columns.argmax()))


def time_slice(video: Tensor, line: tuple[int, int]) -> Tensor:
    """The pixels (3, T, N) of a row or column in each frame of (T, 3, H, W), time downward."""
    return video.select(*line).movedim(0, 1)


def _column(video: Tensor, line: tuple[int, int], title: str) -> Tensor:
    """One video under its title and over its slice, frame by frame, with a margin around."""
    length, _, height, width = video.shape
    times = max(1, round(WIDTH / width))
    thick = max(1, round(SHARE * height * times / length))
    frames = video.repeat_interleave(times, 2).repeat_interleave(times, 3).clone()
    place = slice(line[1] * times + times // 2, line[1] * times + times // 2 + 1)
    mark = frames.new_tensor(MARK).view(3, 1, 1)
    frames[:, :, place if line[0] == 2 else slice(None), place if line[0] == 3 else slice(None)] = mark
    whole = F.interpolate(time_slice(video, line)[None], (length * thick, width * times), mode="nearest")[0]
    slices = whole.expand(length, -1, -1, -1).clone()
    for time in range(length):  # where the video is now
        now = slice(time * thick, (time + 1) * thick)
        slices[time, :, now, :GAP] = slices[time, :, now, -GAP:] = mark
    head = _text(title, width * times).to(frames).expand(length, -1, -1, -1)
    parts = [head, frames, frames.new_full((length, 3, GAP, width * times), PAPER), slices]
    return F.pad(torch.cat(parts, dim=2), (GAP, GAP, GAP, GAP), value=PAPER)


def _text(text: str, width: int) -> Tensor:
    """A line of text (3, TITLE, width), dark on white."""
    image = Image.new("L", (width, TITLE), 255)
    ImageDraw.Draw(image).text((0, TITLE // 2 - 2), text, 30, ImageFont.load_default(16), "lm")
    return pil_to_tensor(image).float().expand(3, -1, -1) / 255
