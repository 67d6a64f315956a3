"""Clips survive the way to a file and back; what is no clip is refused by name."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from motionprompt_core.media.video import read_video
from motionprompt_tools.writing import write_video


def clip(frames: int = 6, height: int = 48, width: int = 64) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    time = torch.linspace(0, 0.5, frames).view(-1, 1, 1)
    return torch.stack([(x + time) % 1, y.expand(frames, -1, -1), 1 - (y * x).expand(frames, -1, -1)], dim=1)


@pytest.mark.parametrize(("name", "tolerance"), [("a.webp", 0.05), ("a.gif", 0.08), ("a.png", 0.003), ("a.mp4", 0.05)])
def test_round_trip(tmp_path, name, tolerance):
    write_video(clip(), tmp_path / name, fps=10)
    frames, fps = read_video(tmp_path / name)
    assert frames.shape == (6, 3, 48, 64) and fps == pytest.approx(10)
    assert (frames - clip()).abs().mean() < tolerance
    assert frames.min() >= 0 and frames.max() <= 1


def test_odd_sizes_and_channels_last(tmp_path):
    write_video(clip(height=33, width=47).movedim(1, -1), tmp_path / "odd.mp4")
    assert read_video(tmp_path / "odd.mp4")[0].shape == (6, 3, 33, 47)


def test_part_of_a_folder_of_images_scaled(tmp_path):
    for index, frame in enumerate(clip(9)):
        pixels = (frame * 255).round().byte().movedim(0, -1).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{index:03}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    frames, fps = read_video(tmp_path, start=1, length=3, step=2, size=24)
    assert frames.shape == (3, 3, 24, 32) and fps == 4
    whole = torch.nn.functional.interpolate(clip(9)[1:7:2], size=(24, 32), mode="bilinear", antialias=True)
    assert (frames - whole).abs().mean() < 0.02


def test_unusable_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.mp4"):
        read_video(tmp_path / "gone.mp4")
    (tmp_path / "text.mp4").write_text("this is a text file")
    with pytest.raises(ValueError, match="text.mp4 cannot be decoded"):
        read_video(tmp_path / "text.mp4")
    (tmp_path / "text.webp").write_text("this is a text file")
    with pytest.raises(ValueError, match="text.webp cannot be decoded"):
        read_video(tmp_path / "text.webp")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no frame"):
        read_video(tmp_path / "empty")
    with pytest.raises(ValueError, match="cannot write a.xyz"):
        write_video(clip(), tmp_path / "a.xyz")
