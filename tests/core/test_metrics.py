"""The metrics: exact where they are VBench's, and each worse for a video that is worse in what it measures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from motionprompt_core.discriminator.model import DiscriminatorConfig, FlowDiscriminator
from motionprompt_core.flow.base import FlowModel
from motionprompt_core.media.ops import gaussian_blur
from motionprompt_core.metrics import measure
from motionprompt_core.metrics.measure import TemporalMetrics, measure_video
from motionprompt_core.metrics.video import (
    as_video,
    flow_scores,
    path_changes,
    sharpnesses,
    video_flow,
    visible,
    warping_errors,
)
from tests.gradient_flow import GradientFlow

HIGHER_IS_BETTER = ("temporal_flickering", "motion_smoothness", "flow_consistency")
LOWER_IS_BETTER = ("warping_error", "flow_acceleration")


def moving_clip(frames: int = 8, size: int = 64, speed: int = 1) -> torch.Tensor:
    """A texture that glides to the right at `speed` px a frame, (T, 3, size, size)."""
    generator = torch.Generator().manual_seed(0)
    wide = gaussian_blur(torch.randn(1, 3, size, size + frames * speed, generator=generator), 2.5)
    wide = torch.sigmoid(1.5 * wide / wide.std())
    starts = [(frames - index) * speed for index in range(frames)]
    return torch.cat([wide[..., start : start + size] for start in starts])


class UniformFlow(FlowModel):
    """Says the same motion everywhere: the truth for `moving_clip`, and scale for the dynamic degree."""

    name, min_size, multiple = "uniform", 1, 1

    def __init__(self, dx: float):
        super().__init__()
        self.dx = dx

    def estimate(self, a, b):
        flow = a.new_zeros(len(a), 2, *a.shape[-2:])
        flow[:, 0] = self.dx
        return flow


def evaluate(clip: torch.Tensor, flow: FlowModel, *judge: FlowDiscriminator, **options: float) -> TemporalMetrics:
    return measure_video(clip, flow, *judge, **options).metrics


@pytest.fixture(scope="module")
def measured():
    clip = moving_clip()
    order = torch.tensor([3, 0, 6, 2, 7, 1, 5, 4])
    flow = GradientFlow()
    return {
        "smooth": evaluate(clip, flow),
        "again": evaluate(clip, flow),
        "shuffled": evaluate(clip[order], flow),
        "frozen": evaluate(clip[:1].expand(8, -1, -1, -1), flow),
    }


def test_the_same_clip_measures_the_same(measured):
    assert measured["smooth"] == measured["again"]


@pytest.mark.parametrize("name", HIGHER_IS_BETTER + LOWER_IS_BETTER)
def test_a_shuffled_clip_is_worse(measured, name):
    smooth, shuffled = getattr(measured["smooth"], name), getattr(measured["shuffled"], name)
    assert shuffled < smooth if name in HIGHER_IS_BETTER else shuffled > smooth


def test_a_frozen_clip_is_flagged_and_a_moving_one_is_not(measured):
    frozen = measured["frozen"]
    assert frozen.frozen and frozen.to_dict()["frozen"]
    assert frozen.temporal_flickering == 1.0  # perfect, which is why it needs the flag
    assert frozen.dynamic_degree == 0 and frozen.flow_magnitude == pytest.approx(0, abs=1e-4)
    assert not measured["smooth"].frozen and not measured["shuffled"].frozen
    assert measured["smooth"].flow_magnitude > 0.5


def test_temporal_flickering_is_vbench_on_8_bit_frames():
    clip = moving_clip() + 0.001
    pixels = (clip.clamp(0, 1) * 255).round().byte().numpy()
    pairs = zip(pixels[:-1], pixels[1:], strict=True)
    errors = [np.abs(a.astype(np.float32) - b.astype(np.float32)).mean() for a, b in pairs]
    assert evaluate(clip, GradientFlow()).temporal_flickering == pytest.approx((255 - np.mean(errors)) / 255, abs=1e-6)


def test_flicker_of_brightness_is_seen():
    clip = moving_clip()
    gain = torch.tensor([1, 0.8] * 4).view(-1, 1, 1, 1)
    flickering, calm = (evaluate(video, GradientFlow()).temporal_flickering for video in (clip * gain, clip))
    assert flickering < calm - 0.02


def test_frames_may_be_channels_last():
    clip = moving_clip()
    assert evaluate(clip.movedim(1, -1), GradientFlow()) == evaluate(clip, GradientFlow())


@pytest.mark.parametrize(("speed", "moves"), [(1.4, False), (1.6, True)])
def test_dynamic_degree_has_vbenchs_threshold(speed, moves):
    clip = torch.rand(16, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    assert evaluate(clip, UniformFlow(speed)).dynamic_degree == moves  # 6 px of 256 are 1.5 px of 64


def test_dynamic_degree_samples_to_8_frames_a_second():
    class OnlyDistant(UniformFlow):
        def estimate(self, a, b):
            return super().estimate(a, b) * (b - a).mean((1, 2, 3)).view(-1, 1, 1, 1)

    clip = torch.arange(24.0).div(24).view(-1, 1, 1, 1).expand(-1, 3, 64, 64)
    flow = OnlyDistant(24 * 1.0)  # 1 px between neighbours, 3 px between every third
    assert evaluate(clip, flow, fps=8).dynamic_degree == 0
    assert evaluate(clip, flow, fps=24).dynamic_degree == 1


def test_true_flow_explains_a_gliding_clip_and_wrong_flow_does_not():
    clip = moving_clip()
    true, wrong = (torch.zeros(7, 2, 64, 64) for _ in range(2))
    true[:, 0], wrong[:, 0] = 1, -1
    (error, seen, _, pixels), (wrong_error, wrong_seen, _, _) = (
        warping_errors(clip, flow, -flow).tolist() for flow in (true, wrong)
    )
    assert error / seen < 1e-6 and seen / pixels > 0.95
    assert wrong_error / wrong_seen > 100 * error / seen + 1e-4
    right, left = (evaluate(clip, UniformFlow(speed)).motion_smoothness for speed in (2, -2))
    assert right > left
    assert (path_changes(true) == 0).all()


def test_occluded_and_leaving_pixels_do_not_count():
    forward, backward = torch.zeros(1, 2, 20, 20), torch.zeros(1, 2, 20, 20)
    forward[:, 0, :, :10] = 5  # goes right, but nothing comes back there
    seen = visible(forward, backward)
    assert not seen[..., :10].any() and seen[..., 10:].all()
    leaving = torch.full((1, 2, 20, 20), 6.0)
    assert not visible(leaving, -leaving)[..., 14:].any()


def test_blur_lowers_sharpness():
    clip = moving_clip()
    assert sharpnesses(gaussian_blur(clip, 1.5)).mean() < 0.5 * sharpnesses(clip).mean()


def test_discriminator_score_is_the_mean_of_phi_and_warns_of_another_flow_model():
    torch.manual_seed(0)
    config = DiscriminatorConfig(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2, flow_model="gradient")
    model, flow, clip = FlowDiscriminator(config).eval(), GradientFlow(), moving_clip(frames=6)
    with torch.no_grad():
        phi = [torch.sigmoid(model(flow(clip[i : i + 1], clip[i + 2 : i + 3]))).item() for i in range(4)]
    assert evaluate(clip, flow, model, gap=2).discriminator_score == pytest.approx(np.mean(phi), abs=1e-6)
    torch.manual_seed(0)
    model = FlowDiscriminator(replace(config, flows=2)).eval()
    with torch.no_grad():
        flows = [flow(clip[i : i + 1], clip[i + 2 : i + 3]) for i in range(4)]
        phi = [torch.sigmoid(model(torch.cat((flows[i], flows[i + 2]), dim=1))).item() for i in range(2)]
    assert evaluate(clip, flow, model, gap=2).discriminator_score == pytest.approx(np.mean(phi), abs=1e-6)
    with pytest.warns(UserWarning, match="trained with gradient and is shown the flow of uniform"):
        flow_scores(video_flow(clip, UniformFlow(1)), UniformFlow(1), model)


def test_unusable_videos_are_refused():
    flow = GradientFlow()
    with pytest.raises(ValueError, match="1 frame.*one frame has no motion"):
        as_video(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"\[0, 1\], got \(4, 4, 32, 32\)"):
        evaluate(torch.rand(4, 4, 32, 32), flow)
    with pytest.raises(ValueError, match="uint8"):
        as_video(torch.zeros(4, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="NaN"):
        evaluate(torch.full((4, 3, 32, 32), float("nan")), flow)
    with pytest.raises(ValueError, match="gap is 4, expected 1 to 3 for 4 frames"):
        video_flow(torch.rand(4, 3, 32, 32), flow, gap=4)


@pytest.mark.parametrize("fps", [8, 24])
def test_a_video_in_parts_measures_like_the_whole(monkeypatch, fps):
    """Long videos are measured in blocks; the numbers must not depend on where those are cut."""
    clip, flow = moving_clip(45, size=32, speed=2), GradientFlow()
    judge = FlowDiscriminator(DiscriminatorConfig(flow_model="gradient", flows=2, img_size=32)).eval()
    whole = measure_video(clip, flow, judge, fps=fps)
    monkeypatch.setattr(measure, "BLOCK_PIXELS", 10 * 32 * 32)
    parts = measure_video(iter(clip.split(7)), flow, judge, fps=fps)
    assert len(parts.change) == len(parts.speed) == 44
    for key, value in whole.metrics.to_dict().items():
        assert parts.metrics.to_dict()[key] == (
            pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
        ), key


@pytest.mark.parametrize(("frames", "fps"), [(3, 24), (8, 60), (16, 240)])
def test_a_clip_that_is_short_in_time_is_measured_but_for_what_needs_more(frames, fps):
    found = evaluate(moving_clip(frames, size=32), GradientFlow(), fps=fps)
    assert found.dynamic_degree is None
    assert found.motion_smoothness > 0.9 and found.frames == frames
