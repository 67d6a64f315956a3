"""What looks at a finished video tells whose it is, and never takes it with it: an error in one node of a queued run
keeps every node after it from saving."""

from __future__ import annotations

import json
import sys

import pytest
import torch


@pytest.fixture
def without_matplotlib(monkeypatch):
    """ComfyUI does not bring it."""
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def queued(tiny, monkeypatch):
    """Name the queued run in which the nodes are executed from now on."""
    return lambda name: monkeypatch.setattr(tiny.comfy.module("nodes.host.sampling"), "queued_run", lambda: name)


def shown(tiny, report, video):
    """The summary for a sampler's latents."""
    return tiny.comfy.run("MotionPromptReport", report=report, latent={"samples": video})[2]


def sampled(tiny, model, **options):
    return tiny.stock(model=model, positive=tiny.learnable, **options)


def test_the_report_of_a_video_that_is_still_there_from_an_earlier_queued_run(tiny, queued):
    """Queued again with another seed for one of two samplers: the other's video is not sampled anew."""
    model, report = tiny.applied()
    queued("first")
    kept, _ = (sampled(tiny, model, seed=seed, steps=steps) for seed, steps in ((1, 4), (2, 3)))
    queued("second")
    anew = sampled(tiny, model, seed=5, steps=2)
    assert ["of 4" in shown(tiny, report, kept), "of 2" in shown(tiny, report, anew)] == [True, True]
    assert "sampled" not in shown(tiny, report, anew)


@pytest.mark.parametrize("guide", ["tokens", "estimate"])
def test_a_noise_mask_that_keeps_everything_is_told(tiny, guide):
    """It was "done", with losses and steps, and the video that had been put in."""
    kept = {**tiny.latent(2), "noise_mask": torch.zeros(1, 1, 64, 64)}
    video, report = tiny.guided(latent_image=kept, guide=guide, discriminator=None, stop=0.25, steps=2)
    assert video.abs().max() < 1e-5 and "noise mask is 0 everywhere" in report.summary()


def test_a_latent_that_was_changed_since_is_not_taken_for_a_samplers(tiny):
    model, report = tiny.applied()
    video = sampled(tiny, model)
    assert "another node changed it" in shown(tiny, report, video * 1.1)
    assert "another node changed it" not in shown(tiny, report, video)


def test_the_picture_parted_from_the_sound_is_known(tiny):
    nested = pytest.importorskip("comfy.nested_tensor").NestedTensor
    picture, sound = torch.randn(1, 4, 2, 3, 3), torch.randn(1, 2, 5)
    identity = tiny.comfy.module("nodes.host.status").video_identity
    assert identity(nested([picture, sound])) == identity(picture) != identity(picture + 1)


def test_without_matplotlib_there_is_text_in_place_of_curves(tiny, without_matplotlib):
    _, report = tiny.guided()
    image, _, summary = tiny.comfy.run("MotionPromptReport", report=report)
    assert "state: done" in summary and image.shape[-1] == 3 and 0 < image.mean() < 1
    frames = torch.rand(4, 64, 64, 3)
    table, plot, *_ = tiny.comfy.run("MotionPromptTemporalMetrics", images=frames, flow_model=tiny.flow, fps=8.0)
    assert "temporal_flickering" in table and 0 < plot.mean() < 1


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.rand(2, 64, 64, 3), "Not measured: images has 2 frame"),
        (torch.full((4, 64, 64, 3), torch.nan), "Not measured: video: the frames contain NaN"),
        ({"samples": torch.zeros(4, 4, 8, 8)}, "Not measured: images is a latent: connect"),
    ],
)
def test_what_cannot_be_measured_is_told_and_ends_nothing(tiny, frames, message):
    table, plot, text, said = tiny.comfy.run(
        "MotionPromptTemporalMetrics", images=frames, flow_model=tiny.flow, fps=8.0
    )
    assert message in table and message in said and 0 < plot.mean() < 1
    assert json.loads(text)["error"] in message or message.removeprefix("Not measured: ") in json.loads(text)["error"]


def test_an_upscaled_video_beside_the_one_it_was_made_of(tiny):
    small, large = torch.rand(3, 32, 48, 3), torch.rand(3, 64, 96, 3)
    (both,) = tiny.comfy.run("MotionPromptBeforeAfter", before=small, after=large)
    (alike,) = tiny.comfy.run("MotionPromptBeforeAfter", before=large, after=large)
    assert both.shape == alike.shape
