"""Frames of a video file through PyAV: the stream that players show, upright, whole pictures, in sRGB's range."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.codec
import av.filter
import numpy as np
from PIL import Image

from .hdr import HDR, to_sdr

MAX_PIXELS = 64 * 2**20  # twice an 8K frame
MAX_ASPECT = 20
_COVER = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC
_BT2020 = 9  # of FFmpeg's AVCOL_PRI_*
# FFmpeg's own decoders of these leave out the transparency.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_MIRROR, _TURN_OVER = Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM


def check_size(width: int, height: int, path: Path) -> None:
    """Raise ValueError for frames that are too large or too thin."""
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


def picture_stream(container: Any, path: Path) -> Any:
    """The video stream that FFmpeg and players choose, and no cover.

    Raises:
        ValueError: there is none, or its frames are too large or too thin.
    """
    stream = container.streams.best("video")
    if stream is None or int(getattr(stream, "disposition", 0)) & _COVER:
        moving = [s for s in container.streams.video if not int(getattr(s, "disposition", 0)) & _COVER]
        if not moving:
            raise ValueError(f"video {path} has no picture. Leave it out.")
        stream = moving[0]
    check_size(stream.width, stream.height, path)
    return stream


def decoded(path: Path) -> Iterator[tuple[Image.Image, float | None]]:
    """RGB frames as they are shown, each with its second from the first on, None where the file does not say."""
    with av.open(name(path)) as container:
        stream = picture_stream(container, path)
        aspect = stream.sample_aspect_ratio or Fraction(1)  # 0 where the file does not say
        shown = max(1, round(stream.width * aspect)), stream.height
        check_size(*shown, path)
        first: float | None = None
        for frame in _whole_pictures(_frames(container, stream, path), stream):
            image = _rgb(frame, stream)
            if aspect != 1:  # anamorphic: stored narrower or wider than shown
                image = image.resize((max(1, round(image.width * aspect)), image.height), Image.Resampling.LANCZOS)
            if first is None:
                first = frame.time
            yield _upright(image, frame), None if frame.time is None or first is None else frame.time - first


def name(path: Path) -> str:
    """For FFmpeg, which takes what stands before a colon for a protocol: pipe:0.mp4 is a file here."""
    return str(path.absolute())


def rgb_over_black(image: Image.Image) -> Image.Image:
    """What is transparent is black, whatever is hidden below it."""
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")


def _frames(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """
    Raises:
        ValueError: one is damaged, as far as the decoder can tell; it would show something in its place.
    """
    begun = False
    for frame in _decoded(container, stream):
        if frame.is_corrupt and (begun or frame.key_frame):
            raise ValueError(f"video {path} is damaged at second {frame.time or 0:.2f}. Get it again, or leave it out.")
        if not frame.is_corrupt:  # before the first key frame, where a recording was cut out of a longer one
            begun = True
            yield frame


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    if stream.codec_context.name == "mjpeg":  # flags nothing
        stream.codec_context.options = {"err_detect": "explode"}
    other = _WITH_ALPHA.get(stream.codec_context.name) if stream.metadata.get("alpha_mode") == "1" else None
    if other is None:
        yield from container.decode(stream)
        return
    decoder: Any = av.codec.CodecContext.create(other, "r")
    for packet in container.demux(stream):
        yield from decoder.decode(packet)


def _whole_pictures(frames: Iterator[Any], stream: Any) -> Iterator[Any]:
    """Interlaced frames hold two moments, line by line: what moves has combs, until the missing lines are filled in."""
    graph: Any = None
    for frame in frames:
        if graph is None and frame.interlaced_frame:
            graph = av.filter.Graph()
            source = graph.add_buffer(template=stream)
            fill, sink = graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
            source.link_to(fill)
            fill.link_to(sink)
            graph.configure()
        if graph is None:
            yield frame
        else:
            graph.push(frame)
            yield from _ready(graph)
    if graph is not None:
        graph.push(None)
        yield from _ready(graph)


def _ready(graph: Any) -> Iterator[Any]:
    while True:
        try:
            yield graph.pull()
        except (BlockingIOError, EOFError):  # FFmpeg's "not yet" and "no more"
            return


def _rgb(frame: Any, stream: Any) -> Image.Image:
    context = stream.codec_context
    curve = HDR.get(int(context.color_trc or 0))
    if curve is not None:
        signal = frame.to_ndarray(format="rgb48le").astype(np.float32) / 65535
        return Image.fromarray(to_sdr(signal, curve, wide=int(context.color_primaries or 0) == _BT2020))
    if any(component.is_alpha for component in frame.format.components):
        return rgb_over_black(Image.fromarray(frame.to_ndarray(format="rgba")))
    return frame.to_image()


def _upright(image: Image.Image, frame: Any) -> Image.Image:
    """As the track's header has it: phones lie on their side, and a camera that looks at its user may mirror."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))  # x' = a x + c y, y' = b x + d y
    if (a or d) and (b or c):
        return image.rotate(float(frame.rotation), expand=True)  # counter-clockwise, both of them
    if b or c:
        image, a, d = image.transpose(Image.Transpose.TRANSPOSE), c, b
    image = image.transpose(_MIRROR) if a < 0 else image
    return image.transpose(_TURN_OVER) if d < 0 else image
