"""Temporal Metrics: the numbers of the command line, in the graph."""

from __future__ import annotations

import json
import re
from fractions import Fraction

import pytest
import torch

from motionprompt_core.media.ops import gaussian_blur
from motionprompt_core.media.video import read_video
from motionprompt_tools.__main__ import main
from motionprompt_tools.writing import write_video


@pytest.fixture(scope="module")
def flow_model(comfy):
    return comfy.run("GradientFlow")[0]


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    """A texture that glides by a pixel a frame, as an IMAGE batch (T, H, W, 3) of 8-bit values."""
    wide = gaussian_blur(torch.randn(1, 3, 64, 72, generator=torch.Generator().manual_seed(0)), 2.5)
    frames = torch.cat([torch.sigmoid(3 * wide)[..., 8 - t : 72 - t] for t in range(6)])
    return ((frames * 255).round() / 255).movedim(1, -1)


def test_node_and_command_agree(comfy, flow_model, video, tmp_path, capsys):
    calm, dark = video, video * torch.tensor([1, 0.7] * 3).view(-1, 1, 1, 1)
    files = []
    for name, frames in (("a.png", calm), ("b.png", dark)):
        write_video(frames, tmp_path / name, fps=8)
        files.append(str(tmp_path / name))
    assert main(["metrics", *files, "--flow-model", "gradient", "--json"]) == 0
    command = json.loads(capsys.readouterr().out)
    images = [read_video(file)[0].movedim(1, -1) for file in files]
    table, plot, text, said = comfy.run(
        "MotionPromptTemporalMetrics", images=images[1], compare_with=images[0], flow_model=flow_model, fps=8.0
    )
    node = json.loads(text)
    assert node["differences"] == command["differences"]
    for ours, theirs in zip(node["videos"], command["videos"], strict=True):
        assert {**ours, "name": ""} == {**theirs, "name": ""}
    assert node["differences"][0]["temporal_flickering"] < -0.02  # the flicker that was put in
    assert "temporal_flickering" in table and "images - compare_with" in table
    assert said.splitlines() == [f"{clip['name']}: {clip['verdict']}" for clip in node["videos"]]
    assert plot.ndim == 4 and plot.shape[-1] == 3 and 0 <= plot.min() < plot.max() <= 1


def test_the_same_video_twice_differs_by_zero_and_a_still_one_is_flagged(comfy, flow_model, video):
    _, _, text, _ = comfy.run(
        "MotionPromptTemporalMetrics", images=video, compare_with=video, flow_model=flow_model, fps=8.0
    )
    assert not any(json.loads(text)["differences"][0].values())
    table, _, _, said = comfy.run(
        "MotionPromptTemporalMetrics", images=video[:1].expand(6, -1, -1, -1), flow_model=flow_model, fps=8.0
    )
    assert "NO MOTION" in table and said == "images: nothing moves"


def test_a_picture_is_no_video(comfy, flow_model, video):
    options = {"images": video, "compare_with": video[:1], "flow_model": flow_model, "fps": 8.0}
    *_, said = comfy.run("MotionPromptTemporalMetrics", **options)
    assert re.search("^Not measured: compare_with has 1 frame.*at least 3", said)


def test_a_video_file_and_a_latent_are_measured_as_their_frames(comfy, flow_model, video):
    from comfy_api.latest import InputImpl, Types

    def measured(images, **more):
        return json.loads(comfy.run("MotionPromptTemporalMetrics", images=images, flow_model=flow_model, **more)[2])

    parts = Types.VideoComponents(images=video, audio=None, frame_rate=Fraction(24))
    assert measured(InputImpl.VideoFromComponents(parts), fps=8.0) == measured(video, fps=24.0)
    _, _, vae = comfy.run("MotionPromptLoadDemoVideoModel")
    latent = {"samples": torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))}
    assert measured(latent, vae=vae, fps=8.0) == measured(vae.decode(latent["samples"]), fps=8.0)
    assert "images is a latent: connect the model's VAE to vae" in measured(latent, fps=8.0)["error"]


def test_a_flash_and_a_seam_at_a_given_frame_are_told_in_words(comfy, flow_model, video, tmp_path, capsys):
    flashed = video.clone()
    flashed[3] = (flashed[3] + 0.15).clamp(0, 1)
    *_, said = comfy.run("MotionPromptTemporalMetrics", images=flashed, flow_model=flow_model, fps=8.0)
    assert said.startswith("images: flash at frame 3 ")
    joined = torch.cat((video, video.flip(1)))
    options = {"images": joined, "flow_model": flow_model, "fps": 8.0}
    _, _, text, said = comfy.run("MotionPromptTemporalMetrics", seam_at=len(video), **options)
    assert f"seam at frame {len(video)} " in said
    write_video((joined * 255).round() / 255, tmp_path / "joined.png", fps=8)
    command = ["metrics", str(tmp_path / "joined.png"), "--flow-model", "gradient", "--json"]
    assert main([*command, "--seam-at", str(len(video))]) == 0
    found = json.loads(capsys.readouterr().out)["videos"][0]
    assert found["seam"] == pytest.approx(json.loads(text)["videos"][0]["seam"], rel=1e-3)
    *_, said = comfy.run("MotionPromptTemporalMetrics", seam_at=99, **options)
    assert "seam_at is 99, but the video has the frames 0 to 11" in said


def test_the_plot_shows_every_video(comfy, flow_model, video):
    one = comfy.run("MotionPromptTemporalMetrics", images=video, flow_model=flow_model, fps=8.0)[1]
    two = comfy.run(
        "MotionPromptTemporalMetrics", images=video, flow_model=flow_model, fps=8.0, compare_with=video.flip(0)
    )[1]
    assert one.shape == two.shape and one.shape[-1] == 3
    assert not torch.equal(one, two)
