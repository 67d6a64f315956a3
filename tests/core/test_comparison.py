"""The table and the command on videos: what a user reads."""

from __future__ import annotations

import json

import pytest
import torch

from motionprompt_core.media.ops import gaussian_blur
from motionprompt_core.metrics.comparison import Clip, differences, table, to_dict
from motionprompt_core.metrics.consistency import consistency, frame_consistency
from motionprompt_core.metrics.measure import measure_video
from motionprompt_tools.__main__ import main
from motionprompt_tools.writing import write_video
from tests.gradient_flow import GradientFlow

TEMPORAL = {
    "temporal_flickering": 1,
    "motion_smoothness": 1,
    "flow_consistency": 1,
    "subject_consistency": 1,
    "warping_error": -1,
    "flow_acceleration": -1,
}


def gliding(frames: int = 8, size: int = 64) -> torch.Tensor:
    """A texture that moves one pixel a frame to the right, (T, 3, size, size)."""
    wide = torch.randn(1, 3, size, size + frames, generator=torch.Generator().manual_seed(0))
    wide = torch.sigmoid(3 * gaussian_blur(wide, 2.5))
    return torch.cat([wide[..., frames - t : frames - t + size] for t in range(frames)])


def looks(frames: torch.Tensor) -> torch.Tensor:
    """Stands in for DINO: the picture itself, blurred."""
    return (gaussian_blur(frames, 3) - 0.5).flatten(1)


def measured(name: str, video: torch.Tensor) -> Clip:
    return Clip(name, measure_video(video, GradientFlow()), {"subject_consistency": consistency(video, looks)})


@pytest.fixture(scope="module")
def clips() -> dict[str, Clip]:
    video = gliding()
    order = torch.tensor([3, 0, 6, 2, 7, 1, 5, 4])
    videos = {"a": video, "again": video, "shuffled": video[order], "frozen": video[:1].expand(8, -1, -1, -1)}
    return {name: measured(name, video) for name, video in videos.items()}


def test_a_clip_against_itself_differs_by_zero(clips):
    [change] = differences([clips["a"], clips["again"]])
    assert set(change) >= set(TEMPORAL) and not any(change.values())


def test_a_shuffled_clip_is_worse_in_every_temporal_metric(clips):
    [change] = differences([clips["a"], clips["shuffled"]])
    assert all(change[metric] * better < 0 for metric, better in TEMPORAL.items()), change


def test_a_frozen_clip_is_called_so_and_a_moving_one_is_not(clips):
    text = table([clips["a"], clips["frozen"]])
    assert "frozen: NO MOTION" in text and "a: NO MOTION" not in text
    assert to_dict([clips["frozen"]])["videos"][0]["frozen"] is True


def test_the_table_tells_vbench_from_proxies(clips):
    lines = {line.split()[0]: line for line in table([clips["a"]]).splitlines() if line}
    assert lines["temporal_flickering"].endswith("VBench")
    assert "proxy" in lines["motion_smoothness"] and "gradient: a proxy" in lines["dynamic_degree"]
    assert "not measured: background_consistency" in table([clips["a"]])


def test_frame_consistency_by_hand():
    # To the previous: 0, 1, 0 (its cosine is -1); to the first: 0, 0, 0.
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0], [0.0, -1.0]])
    assert frame_consistency(features) == pytest.approx(1 / 6)
    assert frame_consistency(torch.ones(5, 3)) == pytest.approx(1)


def test_the_command_gives_the_numbers_of_the_core(tmp_path, capsys):
    video = gliding()
    for name, frames in (("a.png", video), ("b.png", video.flip(0) * 0.9)):
        write_video(frames, tmp_path / name, fps=8)
    files = [str(tmp_path / name) for name in ("a.png", "b.png")]
    assert main(["metrics", *files, "--flow-model", "gradient", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = measure_video((video * 255).round() / 255, GradientFlow()).metrics.to_dict()
    for key, value in expected.items():
        shown = found["videos"][0][key]
        assert shown == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value), key
    assert found["differences"][0]["temporal_flickering"] != 0


def test_the_command_names_a_file_that_it_cannot_measure(tmp_path, capsys):
    write_video(gliding(frames=2), tmp_path / "short.png")
    assert main(["metrics", str(tmp_path / "short.png"), "--flow-model", "gradient"]) == 2
    assert "short.png" in (error := capsys.readouterr().err) and "2 frame(s)" in error
    assert main(["metrics", str(tmp_path / "absent.mp4"), "--flow-model", "gradient"]) == 2
    assert "absent.mp4" in capsys.readouterr().err
