"""Footage as cameras, phones, editors and downloads leave it: read as a player shows it, or refused by name."""

from __future__ import annotations

import os
import struct
import sys
import unicodedata
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pytest
import torch
from PIL import Image, features

from motionprompt_core.discriminator.clips import check_apart, find_clips
from motionprompt_core.media.sources import decoding, timing
from motionprompt_core.media.video import read_video
from motionprompt_tools.writing import write_video
from tests.core.test_sources import gliding, pixels

RED, GREEN, BLUE = (200, 40, 40), (40, 200, 40), (40, 40, 200)


def plain(*colours: tuple[int, ...], size: tuple[int, int] = (64, 48)) -> list[Image.Image]:
    return [Image.new("RGB" if len(colour) == 3 else "RGBA", size, colour) for colour in colours]


def colours(path: Path) -> list[tuple[int, ...]]:
    """The middle of each frame that is read."""
    return [tuple((frame[:, 24, 32] * 255).round().int().tolist()) for frame in read_video(path)[0]]


def encode(path: Path, frames: Iterable[Any], codec: str, pixel_format: str, **options: Any) -> None:
    """`options`: of the stream's codec context."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.pix_fmt = pixel_format
        for number, frame in enumerate(frames):
            if not isinstance(frame, av.VideoFrame):
                frame = av.VideoFrame.from_ndarray(np.array(frame), format={"RGB": "rgb24", "RGBA": "rgba"}[frame.mode])
            if number == 0:
                stream.width, stream.height = frame.width, frame.height
                for name, value in options.items():
                    setattr(stream.codec_context, name, value)
            made = frame if frame.format.name == pixel_format else frame.reformat(format=pixel_format)
            made.pts = None
            container.mux(stream.encode(made))
        container.mux(stream.encode())


def near(found: list[tuple[int, ...]], expected: list[tuple[int, ...]], most: int = 6) -> bool:
    return np.abs(np.array(found) - np.array(expected)).max() <= most


def test_the_stream_that_players_show_is_read(tmp_path):
    """It was the first: a cover, or a small second picture."""
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        cover, film = (container.add_stream("libx264", rate=rate) for rate in (1, 8))
        (cover.width, cover.height), (film.width, film.height) = (32, 32), (64, 48)
        cover.pix_fmt = film.pix_fmt = "yuv420p"
        for stream, frames in ((cover, plain(RED, size=(32, 32))), (film, plain(*[GREEN] * 6))):
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_image(frame)))
            container.mux(stream.encode())
    assert near(colours(tmp_path / "two.mkv"), [GREEN] * 6) and timing(tmp_path / "two.mkv").rate == 8


def test_what_a_webm_has_hidden_below_transparent_pixels_is_not_seen(tmp_path):
    """FFmpeg's own decoder of VP9 leaves the transparency out."""
    encode(tmp_path / "cut_out.webm", plain(*[(*RED, 0)] * 3), "libvpx-vp9", "yuva420p")
    assert near(colours(tmp_path / "cut_out.webm"), [(0, 0, 0)] * 3)


def signal(colour: tuple[int, ...], curve: str) -> np.ndarray:
    """How a camera of BT.2100 writes this sRGB colour, whose white is 203 cd/m2."""
    light = np.where(
        np.array(colour) <= 10, np.array(colour) / 255 / 12.92, ((np.array(colour) / 255 + 0.055) / 1.055) ** 2.4
    )
    wide = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]) @ light * 203
    if curve == "pq":
        power = (wide / 10000) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    luma = float(wide @ [0.2627, 0.6780, 0.0593]) / 1000
    scene = wide / 1000 * luma ** (1 / 1.2 - 1)
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 0.1)) + 0.55991073
    )


@pytest.mark.parametrize(("curve", "number"), [("pq", 16), ("hlg", 18)])
def test_high_dynamic_range_keeps_its_colours(tmp_path, curve, number):
    """A phone's video came out pale: its numbers mean other lights than sRGB's."""
    shown = [RED, GREEN, BLUE, (235, 235, 235), (60, 60, 60)]
    frames = []
    for colour in shown:
        values = np.broadcast_to((signal(colour, curve) * 65535).round().astype(np.uint16), (48, 64, 3))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format="rgb48le")
        frames.append(frame.reformat(format="yuv420p10le", dst_colorspace=9))
        frames[-1].colorspace, frames[-1].color_range = 9, 1
    options = {"color_trc": number, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    encode(tmp_path / "phone.mkv", frames, "ffv1", "yuv420p10le", **options)
    assert near(colours(tmp_path / "phone.mkv"), shown, most=8)


def test_interlaced_video_has_no_combs(tmp_path):
    """Every other line is of a later moment: what moved sideways was torn into teeth."""
    clip = [pixels(frame) for frame in gliding(16, speed=4)]
    woven = [first.copy() for first in clip[::2]]
    for frame, later in zip(woven, clip[1::2], strict=True):
        frame[1::2] = later[1::2]
    with av.open(str(tmp_path / "camera.mpg"), "w", format="mpeg") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 64, "yuv420p", 8_000_000
        stream.options = {"flags": "+ilme+ildct", "top": "1"}
        for frame in woven:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    video, _ = read_video(tmp_path / "camera.mpg")
    torn = torch.tensor(np.stack(woven)).movedim(-1, 1) / 255
    assert len(video) == 8 and teeth(video) < 0.4 * teeth(torn)


def teeth(video: torch.Tensor) -> float:
    """How far lines are from what lies between their neighbours."""
    return float((video[:, :, 1:-1] - (video[:, :, :-2] + video[:, :, 2:]) / 2).abs().mean())


@pytest.mark.parametrize("name", ["mirrored", "upside_down", "turned_and_mirrored"])
def test_a_mirrored_video_is_shown_as_players_show_it(tmp_path, name):
    """One that was mirrored came out upside down."""
    picture = gliding(1)[0]
    matrix, expected = {
        "mirrored": ((-65536, 0, 0, 0, 65536, 0), picture.flip(2)),
        "upside_down": ((65536, 0, 0, 0, -65536, 0), picture.flip(1)),
        "turned_and_mirrored": ((0, 65536, 0, 65536, 0, 0), picture.transpose(1, 2)),
    }[name]
    write_video(picture.expand(4, -1, -1, -1), tmp_path / "stored.mp4")
    data = bytearray((tmp_path / "stored.mp4").read_bytes())
    box = data.find(b"tkhd") + 4
    struct.pack_into(">9i", data, box + 4 + (20 if data[box] == 0 else 32) + 16, *matrix, 0, 0, 1 << 30)
    (tmp_path / "shown.mp4").write_bytes(data)
    assert (read_video(tmp_path / "shown.mp4")[0][0] - expected).abs().mean() < 0.03


def test_pixels_of_any_shape_are_bounded_before_they_are_scaled(tmp_path):
    """Two bytes in a header would have made a picture of 2 GiB."""
    encode(tmp_path / "flat.mp4", plain(RED), "libx264", "yuv420p", sample_aspect_ratio=Fraction(4, 3))
    data = bytearray((tmp_path / "flat.mp4").read_bytes())
    struct.pack_into(">2I", data, data.find(b"pasp") + 4, 60000, 1)
    (tmp_path / "flat.mp4").write_bytes(data)
    with pytest.raises(ValueError, match=r"flat.mp4 has frames of 3840000x48 px"):
        read_video(tmp_path / "flat.mp4")


@pytest.mark.parametrize("name", ["a.tif", "a.avif", "a.apng"])
def test_pictures_with_several_pages_are_clips(tmp_path, name):
    """A stack of a microscope or of Photoshop was one frame; animated .avif was no clip."""
    if name == "a.avif" and not features.check("avif"):
        pytest.skip("this Pillow knows no AVIF")
    first, *rest = plain(RED, GREEN, BLUE)
    options = {"format": "PNG"} if name == "a.apng" else {}
    first.save(tmp_path / name, save_all=True, append_images=rest, duration=125, **options)
    assert find_clips(tmp_path) == [tmp_path / name]
    assert near(colours(tmp_path / name), [RED, GREEN, BLUE], most=12)


def test_a_picture_for_viewers_without_animations_is_no_frame(tmp_path):
    cover, *rest = plain(RED, GREEN, BLUE)
    cover.save(tmp_path / "a.png", save_all=True, append_images=rest, default_image=True, duration=40)
    assert colours(tmp_path / "a.png") == [GREEN, BLUE]


def test_a_gif_of_no_duration_runs_as_browsers_show_it(tmp_path):
    first, *rest = plain(RED, GREEN, BLUE)
    for duration in (0, 10, 20):
        first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=duration)
        assert timing(tmp_path / "a.gif").rate == (50 if duration == 20 else 10)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a_1", "a_2", "b_1", "b_2"], "several sequences of pictures, as a_1.png and b_1.png show"),
        (["take1_01", "take1_02", "take2_01", "take2_02"], "as take1_01.png and take2_01.png show"),
        (["0", "0_mask", "1", "1_mask"], "as 0.png and 0_mask.png show"),
        (["IMG_1", "img_01", "img_2"], "as IMG_1.png and img_01.png show"),
        (["a.tif", "a"], "as a.png and a.tif show"),
        (["shot -1", "shot 0", "shot 1"], "as shot 0.png and shot -1.png show"),
        (["1", "2", "3", "7", "8"], "is uneven: from 3.png to 7.png its number grows by 4, elsewhere by 1"),
    ],
)
def test_a_folder_that_is_not_one_sequence_is_refused(tmp_path, names, message):
    """They were put one after the other, or in turn: motion that nobody filmed."""
    for name in names:
        plain(RED)[0].save(tmp_path / (name if name.endswith(".tif") else f"{name}.png"))
    with pytest.raises(ValueError, match=message):
        read_video(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ["first", "second", "third"],
        ["10", "12", "14", "16"],
        ["shot_12-00-58", "shot_12-00-59", "shot_12-01-00"],
        ["clip2_0033ms", "clip2_0067ms", "clip2_0100ms"],
        ["\u00e91", unicodedata.normalize("NFD", "\u00e92"), "\u00e93"],
    ],
)
def test_a_folder_that_is_one_sequence_is_read_in_its_order(tmp_path, names):
    for name, frame in zip(names, plain(RED, GREEN, BLUE, RED), strict=False):
        frame.save(tmp_path / f"{name}.png")
    for beside in ("Thumbs.db", ".DS_Store", "._first.png", "notes.txt"):
        (tmp_path / beside).write_bytes(b"\0\5\x16\7")
    assert colours(tmp_path) == [RED, GREEN, BLUE, RED][: len(names)]


def test_a_damaged_video_is_refused_where_the_decoder_sees_it(tmp_path):
    """It showed blocks of other frames in their place."""
    write_video(gliding(24, speed=3), tmp_path / "whole.mp4")
    data = bytearray((tmp_path / "whole.mp4").read_bytes())
    middle = data.find(b"mdat") + (len(data) - data.find(b"mdat")) // 3
    data[middle : middle + 40] = bytes(range(40))
    (tmp_path / "damaged.mp4").write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged.mp4 (is damaged at second|cannot be decoded)"):
        read_video(tmp_path / "damaged.mp4")


def test_a_half_gif_is_refused_by_name(tmp_path):
    """Pillow raised struct.error, which ended the dataset."""
    noise = [Image.effect_noise((64, 48), 90) for _ in range(10)]
    noise[0].save(tmp_path / "a.gif", save_all=True, append_images=noise[1:])
    data = (tmp_path / "a.gif").read_bytes()
    for length in range(len(data) // 2, len(data) // 2 + 40):
        (tmp_path / "a.gif").write_bytes(data[:length])
        with pytest.raises(ValueError, match="a.gif cannot be decoded"):
            read_video(tmp_path / "a.gif")


def test_a_size_in_a_damaged_header_is_no_lack_of_memory(tmp_path):
    """FFmpeg is asked for more than there is, and the dataset ended; a lack of memory of our own still does."""
    (tmp_path / "a.mp4").touch()
    for error, told in ((av.error.MemoryError(12, "Cannot allocate memory"), ValueError), (MemoryError(), MemoryError)):
        with pytest.raises(told), decoding(tmp_path / "a.mp4"):
            raise error


@pytest.mark.skipif(sys.platform == "win32", reason="needs colons in names")
@pytest.mark.parametrize("name", ["file:a.mp4", "pipe:0.mp4", "concat:a|b.mp4", "http:a.mp4", "data:,a.mp4"])
def test_a_name_is_no_address(tmp_path, monkeypatch, name):
    """FFmpeg takes what stands before a colon for a protocol, and would have asked the network."""
    write_video(gliding(3), tmp_path / "clip.mp4")
    os.rename(tmp_path / "clip.mp4", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(read_video(name)[0]) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_links_that_lead_to_themselves_or_nowhere_end_nothing(tmp_path):
    write_video(gliding(3), tmp_path / "clip.mp4")
    for name, target in (("a", "b"), ("b", "a"), ("self.mp4", "self.mp4"), ("gone.mp4", "nowhere"), ("up", ".")):
        os.symlink(target, tmp_path / name)
    found = find_clips(tmp_path)
    check_apart(found, [])
    assert tmp_path / "clip.mp4" in found
    for path in set(found) - {tmp_path / "clip.mp4"}:
        with pytest.raises((ValueError, FileNotFoundError), match=path.name):
            read_video(path)
