"""Files as people have them are read as they are meant, or refused by name: order, rotation, time, depth, size."""

from __future__ import annotations

import os
import struct
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from motionprompt_core.discriminator.clips import ClipSettings, find_clips, read_clip, without_borders
from motionprompt_core.flow import load_flow_model
from motionprompt_core.media.ops import gaussian_blur
from motionprompt_core.media.sources import Timing, timing
from motionprompt_core.media.streams import MAX_ASPECT
from motionprompt_core.media.video import read_video, stream_video
from motionprompt_tools.writing import write_video


def gliding(frames: int, height: int = 64, width: int = 96, speed: int = 2, seed: int = 0) -> torch.Tensor:
    """A texture that glides to the right, (T, 3, H, W) in [0, 1]."""
    noise = torch.randn(1, 3, height, width + speed * frames, generator=torch.Generator().manual_seed(seed))
    wide = torch.sigmoid(8 * gaussian_blur(noise, 3.0))[0]
    return torch.stack([wide[:, :, speed * (frames - i) :][:, :, :width] for i in range(frames)])


def pixels(frame: torch.Tensor) -> np.ndarray:
    return (frame * 255).round().byte().movedim(0, -1).contiguous().numpy()


def motion(video: torch.Tensor) -> list[tuple[float, float]]:
    """Mean flow (x, y) from each frame to the next, px."""
    with torch.no_grad():
        flow = load_flow_model("lucas_kanade")(video[:-1], video[1:])
    return [(float(f[0].mean()), float(f[1].mean())) for f in flow]


def write_at(frames: torch.Tensor, seconds: list[float], path) -> None:
    """A video whose frames are shown at these moments."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = frames.shape[3], frames.shape[2], "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.options = {"crf": "14"}
        for frame, second in zip(frames, seconds, strict=True):
            picture = av.VideoFrame.from_ndarray(pixels(frame), format="rgb24")
            picture.pts, picture.time_base = round(second * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


@pytest.mark.parametrize("pattern", ["frame_{}.png", "take2_{}.jpg", "{}.bmp"])
def test_frames_come_in_the_order_of_their_numbers(tmp_path, pattern):
    clip = gliding(11)
    for index, frame in enumerate(clip, start=1):
        Image.fromarray(pixels(frame)).save(tmp_path / pattern.format(index))
    video, _ = read_video(tmp_path)
    assert (video - clip).abs().mean() < 0.03


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_phone_video_stands_upright(tmp_path, turns):
    """Phones store the sensor's rows and note a rotation in the track's header."""
    upright = gliding(8, height=96, width=64)
    write_video(torch.rot90(upright, turns, dims=(2, 3)), tmp_path / "lying.mp4", fps=8)
    matrices = {
        1: (0, 65536, 0, -65536, 0, 0),
        2: (-65536, 0, 0, 0, -65536, 0),
        3: (0, -65536, 0, 65536, 0, 0),
    }
    data = bytearray((tmp_path / "lying.mp4").read_bytes())
    box = data.find(b"tkhd") + 4
    struct.pack_into(">9i", data, box + 4 + (20 if data[box] == 0 else 32) + 16, *matrices[turns], 0, 0, 1 << 30)
    (tmp_path / "phone.mp4").write_bytes(data)
    video, _ = read_video(tmp_path / "phone.mp4")
    assert video.shape == upright.shape
    assert (video - upright).abs().mean() < 0.03


def test_the_note_of_a_camera_in_a_still_is_followed(tmp_path):
    clip = gliding(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned by 90 degrees clockwise
    for index, frame in enumerate(clip):
        lying = torch.rot90(frame, 1, dims=(1, 2))
        Image.fromarray(pixels(lying)).save(tmp_path / f"{index}.png", exif=exif)
    assert (read_video(tmp_path)[0] - clip).abs().mean() < 0.01


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    """A DV or DVD picture is stored narrower than it is shown; its motion to the side would be too small."""
    clip = gliding(4)
    with av.open(str(tmp_path / "dv.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels(frame), format="rgb24")))
        container.mux(stream.encode())
    video, _ = read_video(tmp_path / "dv.mp4")
    assert video.shape[-2:] == (64, 128)
    assert motion(video)[0][0] == pytest.approx(2 * 4 / 3, abs=0.3)


def test_a_variable_frame_rate_is_thinned_out_by_time(tmp_path):
    """The same speed in px a second throughout: first at 60 frames a second, then at 10."""
    seconds = [i / 60 for i in range(60)] + [1 + i / 10 for i in range(20)]
    wide = gliding(1, 64, 300, 0)[0]
    write_at(torch.stack([wide[:, :, round(180 - 60 * t) :][:, :, :96] for t in seconds]), seconds, tmp_path / "v.mp4")
    clip = read_clip(tmp_path / "v.mp4", ClipSettings(size=64))
    assert 22 <= len(clip) <= 26
    speeds = [x for x, _ in motion(clip)]
    assert sum(abs(speed - 7.5) < 1.5 for speed in speeds) >= 0.9 * len(speeds), speeds


def test_a_picture_that_stays_is_not_faded_out(tmp_path):
    clip = gliding(20, speed=4)
    seconds = [i / 30 for i in range(10)] + [2 + i / 12 for i in range(10)]
    write_at(clip, seconds, tmp_path / "v.mp4")
    frames, _ = read_video(tmp_path / "v.mp4", fps=8)
    held = frames[4:16]  # half a second to two seconds: the tenth picture stays
    assert (held - clip[9]).abs().mean() < 0.03


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
@pytest.mark.parametrize("long", [0, -1])
def test_a_title_or_an_end_card_does_not_slow_the_animation_down(tmp_path, name, long):
    clip, durations = [Image.fromarray(pixels(frame)) for frame in gliding(24)], [40] * 24
    durations[long] = 2000
    clip[0].save(tmp_path / name, save_all=True, append_images=clip[1:], duration=durations, loop=0)
    assert timing(tmp_path / name).rate == pytest.approx(25)
    assert len(read_clip(tmp_path / name, ClipSettings(size=64))) == 8


def test_intervals_tell_the_rate():
    assert Timing.of([0.04] * 9 + [3.0], 8).rate == pytest.approx(25)
    assert Timing.of([0.041, 0.042, 0.042] * 8, 8) == Timing(pytest.approx(24), True)
    assert not Timing.of([1 / 60] * 60 + [0.1] * 20, 8).steady
    assert Timing.of([], 8) == Timing(8, True)


@pytest.mark.parametrize(("ending", "depth", "top"), [("png", "uint16", 65535), ("tiff", "uint16", 65535),
                                                       ("tiff", "float32", 1)])  # fmt: skip
def test_deep_grey_pictures_keep_their_greys(tmp_path, ending, depth, top):
    clip = gliding(3)
    for index, frame in enumerate(clip):
        Image.fromarray((frame.mean(0).numpy() * top).astype(depth)).save(tmp_path / f"{index}.{ending}")
    assert (read_video(tmp_path)[0].mean(1) - clip.mean(1)).abs().max() < 0.005


def test_grey_values_of_unknown_range_are_refused_by_name(tmp_path):
    Image.fromarray(np.full((32, 32), 7.5, dtype=np.float32)).save(tmp_path / "depth.tiff")
    with pytest.raises(ValueError, match=r"depth.tiff has grey values from 7.5 to 7.5, expected 0 to 1"):
        read_video(tmp_path)


def test_a_night_scene_is_no_letterbox():
    night = torch.full((4, 3, 90, 160), 0.02)
    for index in range(4):
        night[index, :, 40:50, 20 + 8 * index : 30 + 8 * index] = 0.9
    assert without_borders(night).shape == night.shape
    bars = torch.zeros(4, 3, 90, 160)
    bars[:, :, 15:75] = 0.5
    assert without_borders(bars).shape == (4, 3, 60, 160)


def test_pictures_that_would_fill_the_memory_are_refused_by_name(tmp_path):
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match="bomb.png is too large"):
        read_video(tmp_path)
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match="bomb.png has frames of 9000x9000 px"):
        read_video(tmp_path)
    (tmp_path / "bomb.png").unlink()
    Image.new("1", (1000 * MAX_ASPECT + 1, 1)).save(tmp_path / "thin.png")
    with pytest.raises(ValueError, match="thin.png has frames of 20001x1 px"):
        read_video(tmp_path, size=64)


@pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes and links")
def test_pipes_are_refused_and_links_followed_once(tmp_path):
    write_video(gliding(6), tmp_path / "one.mp4")
    for name in ("again", "and_again"):
        os.symlink(tmp_path, tmp_path / name, target_is_directory=True)
    os.symlink(tmp_path / "one.mp4", tmp_path / "zwei.mp4")
    assert find_clips(tmp_path) == [tmp_path / "again" / "one.mp4"] or len(find_clips(tmp_path)) == 1
    os.mkfifo(tmp_path / "pipe.mp4")
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.mp4", tmp_path / "pipe.png"):
        with pytest.raises(ValueError, match=f"{path.name} is no regular file"):
            read_video(path)


def test_a_long_video_is_read_one_frame_at_a_time(tmp_path):
    write_video(gliding(40), tmp_path / "long.mp4")
    frames, rate = stream_video(tmp_path / "long.mp4", length=3, step=10)
    assert [frame.shape for frame in frames] == [(64, 96, 3)] * 3 and rate == pytest.approx(0.8)


@pytest.mark.parametrize("kind", ["png", "mov"])
def test_what_is_hidden_below_transparent_pixels_is_not_seen(tmp_path, kind):
    """It was shown: noise around a cut-out figure, which flickers from frame to frame."""
    frames = []
    for i, frame in enumerate(gliding(4, 64, 64)):
        hidden = np.random.default_rng(i).integers(0, 255, (64, 64, 4), dtype=np.uint8)
        hidden[..., 3] = 0
        hidden[16:48, 16:48, :3], hidden[16:48, 16:48, 3] = pixels(frame)[16:48, 16:48], 255
        frames.append(hidden)
    path = tmp_path / "clip.mov"
    if kind == "png":
        path = tmp_path / "frames"
        path.mkdir()
        for i, frame in enumerate(frames):
            Image.fromarray(frame).save(path / f"{i}.png")
    else:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("qtrle", rate=8)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "argb"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format="argb")))
            container.mux(stream.encode())
    video, _ = read_video(path)
    assert float(video[:, :, :12].abs().max()) == 0
    assert float((video - gliding(4, 64, 64))[:, :, 18:46, 18:46].abs().max()) < 0.01


def test_files_that_are_no_clips_beside_good_ones(tmp_path):
    """Sound alone, half a download, what macOS writes beside files, a folder with a clip's name."""
    write_video(gliding(8), tmp_path / "good.mp4", fps=8)
    whole = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "._good.mp4").write_bytes(b"\0\5\x16\7" + bytes(4092))
    (tmp_path / "folder.mp4").mkdir()
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    settings, told = ClipSettings(size=64, pairs=3, gaps=(1,), grid=32), {}
    for path in find_clips(tmp_path):
        try:
            read_clip(path, settings)
        except ValueError as error:
            told[path.name] = str(error)
    assert set(told) == {"half.mp4", "sound.mp4"}
    assert "cannot be decoded" in told["half.mp4"] and "has no picture" in told["sound.mp4"]
