"""Steady: off is off, the change is told, and too little memory means smaller pieces."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def clip(comfy):
    """A flickering texture (6, 64, 64, 3)."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8, generator=generator), size=64, mode="bicubic")
    gain = 1 + 0.08 * torch.randn(6, 1, 1, 1, generator=generator)
    return (0.2 + 0.5 * picture * gain).clamp(0, 1).movedim(1, -1)


@pytest.fixture(scope="module")
def flow(comfy):
    return comfy.run("MotionPromptLoadOpticalFlow", name="lucas_kanade", download=False)[0]


def steadied(comfy, clip, flow, **options):
    return comfy.run("MotionPromptSteady", images=clip, flow_model=flow, **{"strength": 1.0, **options})


def light(clip) -> float:
    return float(clip.mean((1, 2, 3)).std())


def test_a_long_video_in_parts_is_what_it_is_in_one(comfy, clip, flow):
    node, whole = comfy.module("nodes.steady"), clip.movedim(-1, 1).repeat(4, 1, 1, 1)
    in_one = node.steady(whole, flow.module).clamp(0, 1)
    assert torch.allclose(node.steady_parts(whole, flow.module, part=5), in_one, atol=1e-5)
    assert not torch.allclose(in_one, whole, atol=1e-2)


def test_flicker_gets_less_and_the_cost_is_told(comfy, clip, flow):
    images, summary = steadied(comfy, clip, flow)
    assert images.shape == clip.shape and light(images) < 0.6 * light(clip)
    assert "sharpness" in summary and "changed by" in summary


def test_strength_0_gives_the_frames_back(comfy, clip, flow):
    images, summary = steadied(comfy, clip, flow, strength=0.0)
    assert torch.equal(images, clip) and summary.startswith("off")


def test_too_few_frames_are_named(comfy, clip, flow):
    with pytest.raises(ValueError, match="Steady: images has 2 frame"):
        steadied(comfy, clip[:2], flow)


def test_too_little_memory_means_one_by_one(comfy, clip, flow, monkeypatch):
    whole, _ = steadied(comfy, clip, flow)
    original = flow.module.estimate

    def short(a, b):
        if len(a) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return original(a, b)

    monkeypatch.setattr(flow.module, "estimate", short)
    images, summary = steadied(comfy, clip, flow)
    assert "one by one" in summary
    torch.testing.assert_close(images, whole, rtol=0, atol=1e-5)


def test_a_video_that_failed_before_ends_no_render(comfy, clip, flow):
    failed = clip.clone()
    failed[2, 0, 0, 0] = torch.nan
    images, summary = steadied(comfy, failed, flow)
    assert images is failed and "NaN or infinity" in summary
