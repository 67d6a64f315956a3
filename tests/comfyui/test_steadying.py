"""Guidance of the estimate in a real ComfyUI: every sampler, masks, windows, families, too little memory, Cancel."""

from __future__ import annotations

import pytest
import torch

from tests.comfyui.test_samplers import SAMPLERS, SCHEDULERS
from tests.comfyui.tiny_family import TinyFamily


def patched(tiny, model=None, strength: float = 1.0):
    """A MODEL whose estimates are corrected, and the report."""
    report = tiny.comfy.module("nodes.host.correction_report").EstimateReport()
    patch = tiny.comfy.module("nodes.host.steadying").EstimatePatch(strength, tiny.vae, tiny.flow, report)
    return patch.attach(model or tiny.model), report


def steadied(tiny, model=None, strength: float = 1.0, **options):
    model, report = patched(tiny, model, strength)
    return tiny.stock(model=model, **options), report


def test_strength_0_is_the_stock_sampler_with_nothing_attached(tiny):
    model, _ = patched(tiny, strength=0)
    assert not model.wrappers.get("predict_noise")
    assert torch.equal(tiny.stock(model=model), tiny.stock())


@pytest.mark.parametrize("sampler_name", [name for name in SAMPLERS if name != "dpm_adaptive"])
def test_every_sampler_is_asked_what_it_takes_over_and_is_served(tiny, sampler_name):
    options = {"sampler_name": sampler_name, "steps": 3, "cfg": 1.0, "latent_image": tiny.latent(3, size=32)}
    latents, report = steadied(tiny, **options)
    assert latents.isfinite().all()
    assert report.steps and not any("could not be asked" in note for note in report.notes)
    assert not torch.equal(latents, tiny.stock(**options))
    assert torch.equal(latents, steadied(tiny, **options)[0])


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_is_served(tiny, scheduler):
    options = {"scheduler": scheduler, "steps": 6, "cfg": 1.0, "latent_image": tiny.latent(3, size=32)}
    latents, report = steadied(tiny, **options)
    assert latents.isfinite().all() and report.steps


@pytest.mark.parametrize("steps", [1, 4, 8, 20])
def test_no_schedule_is_too_short(tiny, steps):
    _, report = steadied(tiny, steps=steps, cfg=1.0, latent_image=tiny.latent(3, size=32))
    assert report.steps
    assert report.summary().startswith("corrected steps: ")


def test_what_a_mask_keeps_is_bit_identical(tiny):
    latent = tiny.latent(4)
    latent["samples"] = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(1))
    latent["noise_mask"] = torch.zeros(1, 1, 64, 64)
    latent["noise_mask"][..., 32:] = 1
    steady, report = steadied(tiny, latent_image=latent)
    plain = tiny.stock(latent_image=latent)
    assert report.steps
    assert torch.equal(steady[..., :4], plain[..., :4])
    assert not torch.equal(steady[..., 4:], plain[..., 4:])


def test_all_frames_are_seen_at_once_however_many_a_window_has(tiny_ade, monkeypatch):
    tiny, seen = tiny_ade, []
    run = tiny.comfy.module("nodes.host.steady_run")
    original = run.steady
    monkeypatch.setattr(run, "steady", lambda frames, *a, **k: seen.append(len(frames)) or original(frames, *a, **k))
    model = tiny.animatediff("v2", context_length=4)
    latents, report = steadied(tiny, model=model, latent_image=tiny.latent(8), cfg=1.0)
    assert report.steps and set(seen) == {8}
    assert latents.isfinite().all()


def test_with_the_tokens_in_either_order_the_optimiser_sees_the_bare_model(tiny):
    alone = tiny.applied()
    tiny.stock(model=alone[0], positive=tiny.learnable, steps=4)
    for first in ("tokens", "estimate"):
        model, tokens, report = tiny.model, None, None
        for step in ("tokens", "estimate") if first == "tokens" else ("estimate", "tokens"):
            if step == "tokens":
                model, tokens = tiny.applied(model=model)
            else:
                model, report = patched(tiny, model)
        tiny.stock(model=model, positive=tiny.learnable, steps=4)
        assert report.steps
        first_losses = [r.steps[0].iterations[0].loss for r in (alone[1], tokens)]
        assert first_losses[0] == first_losses[1]


@pytest.mark.parametrize("family", ["wan", "ltx"])
def test_video_models_whose_latents_hold_several_frames(tiny, family):
    video = TinyFamily(tiny.comfy, family, tiny.flow, tiny.discriminator)
    latents, report = steadied(video)
    assert report.steps and latents.isfinite().all()
    assert not torch.equal(latents, video.stock())
    assert torch.equal(latents, steadied(video)[0])


class Short:
    """Runs out of memory in calls with more than `most` items."""

    def __init__(self, function, most: int):
        self.function, self.most = function, most

    def __call__(self, first, *args, **kwargs):
        if len(first) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return self.function(first, *args, **kwargs)


@pytest.mark.parametrize("place", ["decode", "encode", "flow"])
def test_too_little_memory_means_smaller_pieces_and_then_plain(tiny, monkeypatch, place):
    owner = tiny.flow.module if place == "flow" else tiny.vae.first_stage_model
    name = "estimate" if place == "flow" else place
    options = {"latent_image": tiny.latent(4), "cfg": 1.0}
    whole, _ = steadied(tiny, **options)
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, Short(original, 1), raising=False)
    pieces, report = steadied(tiny, **options)
    assert report.steps and "one by one" in report.summary()
    torch.testing.assert_close(pieces, whole, rtol=1e-3, atol=1e-3)
    monkeypatch.setattr(owner, name, Short(original, 0), raising=False)
    plain, report = steadied(tiny, **options)
    assert not report.steps and "without correction" in report.summary()
    assert torch.equal(plain, tiny.stock(**options))


def test_a_model_that_gives_nan_is_named_and_not_the_vae(tiny):
    model = tiny.model.clone()
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * float("nan"))
    _, report = steadied(tiny, model, latent_image=tiny.latent(3, size=32), cfg=1.0)
    assert not report.steps
    assert "the model's own estimate is not finite" in report.summary() and "VAE" not in report.summary()


@pytest.mark.parametrize("place", ["decoding", "encoding", "the flow model"])
def test_cancel_stops_within_one_evaluation(tiny, monkeypatch, place):
    import comfy.model_management as management

    owner, name = {
        "decoding": (tiny.vae.first_stage_model, "decode"),
        "encoding": (tiny.vae.first_stage_model, "encode"),
        "the flow model": (tiny.flow.module, "estimate"),
    }[place]
    original, after = getattr(owner, name), []

    def press(*args):
        management.interrupt_current_processing(True)
        return original(*args)

    hook = tiny.model.model.diffusion_model.register_forward_hook(lambda *_: after.append(1))
    monkeypatch.setattr(owner, name, press, raising=False)
    before = len(after)
    try:
        with pytest.raises(management.InterruptProcessingException):
            steadied(tiny, steps=8, cfg=1.0, latent_image=tiny.latent(4))
    finally:
        hook.remove()
        management.interrupt_current_processing(False)
    assert len(after) - before < 8


@pytest.mark.parametrize("guide", ["estimate", "both"])
def test_the_sampling_node_guides_the_estimate_alone_or_with_the_tokens(tiny, guide):
    """Alone it is the plain prompt, corrected; learnable tokens in the prompt are left out, as at strength 0."""
    latents, report = tiny.guided(guide=guide, strength=1.0, stop=0.25)
    assert report.state == "done" and report.correction.steps and "corrected steps:" in report.summary()
    assert (report.guided == []) == (guide == "estimate")
    assert "estimate corrected" in report.brief() and '"correction": {' in report.to_json()
    alone, _ = steadied(tiny, positive=tiny.plain, steps=4, cfg=5.0)
    assert torch.equal(latents, alone) == (guide == "estimate")


def test_tokens_alone_leave_the_estimate_as_it_is(tiny):
    _, report = tiny.guided(guide="tokens", stop=0.25)
    assert report.correction is None and "corrected" not in report.summary()
