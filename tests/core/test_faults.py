"""Flash, seam, freeze and drift: found in clips that were made with one of them, and in none without."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from motionprompt_core.flow import load_flow_model
from motionprompt_core.metrics.faults import colour_drift, flash, frame_colours, freeze
from motionprompt_core.metrics.measure import TemporalMetrics, measure_video
from motionprompt_tools.world import random_clip, render
from tests.core.test_metrics import moving_clip

FRAMES, AT = 24, 13


def measure(clip: Tensor, **options: int) -> TemporalMetrics:
    return measure_video(clip, load_flow_model("lucas_kanade_coarse"), **options).metrics


@pytest.fixture(scope="module")
def clean() -> Tensor:
    """A texture that glides to the right and comes back in on the left, so that its colour stays."""
    texture = 0.15 + 0.7 * moving_clip(1, size=48)[0]
    return torch.stack([texture.roll(2 * t, -1) for t in range(FRAMES)])


def test_colours_are_cie_lab() -> None:
    """White, middle grey, and sRGB's red, as in any table of them."""
    colours = torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[100.0, 0.0, 0.0], [53.39, 0.0, 0.0], [53.24, 80.09, 67.20], [0.0, 0.0, 0.0]])
    found = frame_colours(colours[:, :, None, None].expand(-1, -1, 4, 4))
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


def test_a_clean_clip_has_none(clean: Tensor) -> None:
    metrics = measure(clean)
    assert metrics.verdict == "no flash, seam or freeze, and the colours hold"
    assert metrics.flash < 0.5 and metrics.seam < 2 and metrics.motion_seam < 3
    assert metrics.freeze == 0 and metrics.colour_drift < 1


@pytest.mark.parametrize("seed", range(4))
def test_a_rendered_world_has_none(seed: int) -> None:
    clip = render(random_clip(torch.Generator().manual_seed(seed), 0.0, direction="left"))[0]
    assert measure(clip).verdict == "no flash, seam or freeze, and the colours hold"


@pytest.mark.parametrize("light", [0.08, -0.08])
def test_a_single_bright_or_dark_frame_is_a_flash_and_no_seam(clean: Tensor, light: float) -> None:
    clip = clean.clone()
    clip[AT] += light
    metrics = measure(clip)
    assert metrics.verdict.startswith(f"flash at frame {AT} (lightness off by ") and "seam" not in metrics.verdict
    off = abs(frame_colours(clip)[AT, 0] - frame_colours(clean)[AT, 0]).item()
    assert metrics.flash == pytest.approx(off, abs=0.5)
    assert metrics.seam < 2


def test_fades_and_cuts_are_no_flash() -> None:
    assert flash([2.0 * t for t in range(20)]).size == 0
    assert flash([40.0] * 9 + [70.0] * 9).size == 0
    assert flash([40.0, 40.0, 40.0, 46.0, 40.0, 40.0]) == (6.0, 3)


@pytest.mark.parametrize("kind", ["another picture", "another exposure"])
def test_where_two_parts_are_joined_there_is_a_seam(clean: Tensor, kind: str) -> None:
    second = clean.flip(2) if kind == "another picture" else clean + 0.12
    metrics = measure(torch.cat((clean[:AT], second[AT:])))
    assert metrics.verdict.startswith(f"seam at frame {AT} (the picture changes ") and "flash" not in metrics.verdict
    assert metrics.seam > 3
    assert measure(torch.cat((clean[:AT], second[AT:])), seam_at=AT).seam == metrics.seam
    assert measure(torch.cat((clean[:AT], second[AT:])), seam_at=5).seam < 2


def test_where_the_motion_turns_back_there_is_a_seam_in_the_motion(clean: Tensor) -> None:
    """The second part begins with the picture that the first ended with, as chained image to video does."""
    clip = torch.cat((clean[:AT], clean[: AT - 1].flip(0)))
    metrics = measure(clip)
    assert metrics.seam < 3
    assert metrics.verdict.startswith(f"seam in the motion at frame {AT - 1} ")
    assert measure(clip, seam_at=AT).motion_seam == metrics.motion_seam > 3


def test_repeated_frames_are_a_freeze(clean: Tensor) -> None:
    clip = torch.cat((clean[:AT], clean[AT - 1 : AT].expand(5, -1, -1, -1), clean[AT:]))
    metrics = measure(clip)
    assert metrics.freeze == 5 and f"stands still for 5 frames from frame {AT}" in metrics.verdict
    halved = measure(clean[: FRAMES // 2].repeat_interleave(2, 0))
    assert halved.freeze == 1 and "stands still" not in halved.verdict, "only at half its frame rate"
    assert measure(clean[:1].expand(8, -1, -1, -1)).verdict == "nothing moves"
    assert freeze([0.1, 0.0, 0.0, 0.1, 0.0]) == (2.0, 2)


def test_colours_that_wander_off_drift(clean: Tensor) -> None:
    tint = torch.linspace(0, 1, FRAMES)[:, None, None] * torch.tensor([0.12, 0.0, -0.12])[None, :, None]
    metrics = measure(clean + tint[..., None])
    assert metrics.colour_drift > 5 and f"colours drift by {metrics.colour_drift:.1f}" in metrics.verdict
    assert "flash" not in metrics.verdict and "seam" not in metrics.verdict
    colours = [[50.0, 0.0, 0.0]] * 4 + [[50.0, 9.0, 9.0]] * 8 + [[53.0, 4.0, 0.0]] * 4
    assert colour_drift(colours) == pytest.approx(5.0)


@pytest.mark.parametrize("at", [0, FRAMES])
def test_a_seam_at_no_frame_is_refused(clean: Tensor, at: int) -> None:
    with pytest.raises(ValueError, match=f"seam_at is {at}, but the video has the frames 0 to {FRAMES - 1}"):
        measure(clean, seam_at=at)
