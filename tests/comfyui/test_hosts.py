"""What videos are made with in 2026: few steps, two experts, sound beside the picture, start images, any guider."""

from __future__ import annotations

import sys
from itertools import product
from typing import Any

import pytest
import torch

from tests.comfyui.tiny_hosts import TinyHost, same, streams

NAMES = ["wan22", "wan22_i2v", "ltx2", "hunyuan15", "minimax"]
# The official workflow's of LTX-2.
DISTILLED = [1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0]


@pytest.fixture(scope="module")
def make(tiny):
    made: dict[str, TinyHost] = {}

    def host(name: str) -> TinyHost:
        if name not in made:
            if name not in sys.modules[tiny.comfy.node("TinyHostModel").__module__].HOSTS:
                pytest.skip(f"this ComfyUI has no {name}")
            made[name] = TinyHost(tiny.comfy, name, tiny.flow)
        if not tiny.comfy.module("nodes.host.checks").encodes(made[name].vae):
            pytest.skip(f"the tiny autoencoder of {name} only decodes in this ComfyUI")
        return made[name]

    return host


@pytest.fixture(params=NAMES)
def host(make, request):
    return make(request.param)


def accounted(report: Any) -> bool:
    """Every step of the sampler's was corrected, or it is said why not."""
    steps = {step.step for step in report.steps}
    return not steps & set(report.left) and all(reason in report.summary() for reason in report.left.values())


@pytest.fixture
def changes(host, monkeypatch):
    """The estimates before and after each correction."""
    run, seen = host.comfy.module("nodes.host.steady_run"), []
    original = run.EstimateRun.corrected

    def corrected(self, x0, sigma):
        after = original(self, x0, sigma)
        if self.change is not None:
            unpacked = [self.streams.video(x) for x in (x0, after)]
            seen.append((x0, after, *unpacked))
        return after

    monkeypatch.setattr(run.EstimateRun, "corrected", corrected)
    return seen


def test_strength_0_is_the_plain_video_and_sound(host):
    model, _ = host.patched(0.0)
    assert same(host.sample(model), host.sample())


@pytest.mark.parametrize("steps", [2, 4, 8, 20])
def test_every_step_is_corrected_or_named(host, steps):
    model, report = host.patched()
    latent = host.sample(model, steps=steps)
    assert all(stream.isfinite().all() for stream in streams(latent))
    assert report.steps and report.num_steps == steps
    assert accounted(report) and len({s.step for s in report.steps}) + len(report.left) == steps
    assert "corrected steps: " in "\n".join(host.lines) and "No step" not in "\n".join(host.lines)
    assert not torch.equal(streams(latent)[0], streams(host.sample(steps=steps))[0])
    if steps == 4:
        assert same(host.sample(model, steps=steps), latent)


@pytest.mark.parametrize("host", ["ltx2", "minimax"], indirect=True)
def test_the_sound_of_an_estimate_stays_bit_by_bit(host, changes):
    model, _ = host.patched()
    host.sample(model)
    assert changes
    for before, after, video, corrected in changes:
        count = video.numel()
        assert not torch.equal(video, corrected)
        assert torch.equal(before.flatten()[count:], after.flatten()[count:]) and before.numel() > count


@pytest.mark.parametrize("host", ["wan22_i2v", "minimax"], indirect=True)
def test_given_frames_are_not_corrected(host, changes):
    positive = host.positive
    if host.host == "minimax":
        picture = torch.zeros(1, 24, 1, 2, 2)
        keyframes = [{"resolved_frame_index": 0, "latent": picture}]
        positive = [[positive[0][0], {**positive[0][1], "minimax_keyframes": keyframes}]]
    model, _ = host.patched()
    host.sample(model, positive=positive)
    assert changes
    for _, _, video, corrected in changes:
        assert torch.equal(video[:, :, 0], corrected[:, :, 0])
        assert not torch.equal(video[:, :, 1], corrected[:, :, 1])


@pytest.mark.parametrize("host", ["wan22", "ltx2"], indirect=True)
def test_what_a_mask_keeps_of_the_first_frame_is_bit_identical(host):
    latent = host.latent()
    video = streams(latent)[0]
    with torch.inference_mode():
        video.copy_(torch.randn(video.shape, generator=torch.Generator().manual_seed(1)))
    latent["noise_mask"] = torch.ones(1, 1, *video.shape[2:])
    latent["noise_mask"][:, :, 0] = 0
    model, report = host.patched()
    steady, plain = host.sample(model, latent_image=latent), host.sample(latent_image=latent)
    assert report.steps
    assert torch.equal(streams(steady)[0][:, :, 0], streams(plain)[0][:, :, 0])
    assert not torch.equal(streams(steady)[0][:, :, 1:], streams(plain)[0][:, :, 1:])


@pytest.mark.parametrize("host", ["wan22", "wan22_i2v"], indirect=True)
@pytest.mark.parametrize("steps", [4, 20])
def test_two_samplers_are_one_schedule(host, steps):
    """With one expert in both places it is what a single sampler makes."""
    half = steps // 2

    def part(number: int, latent: Any, model: Any) -> tuple[Any, Any]:
        patched, report = host.patched(model=model)
        options = {"add_noise": "enable", "start_at_step": 0, "end_at_step": half}
        if number == 2:
            options = {"add_noise": "disable", "start_at_step": half, "end_at_step": 10000}
        result = host.sample(patched, steps=steps, latent_image=latent, return_with_leftover_noise="enable", **options)
        assert report.num_steps == steps and accounted(report)
        assert f"steps {1 + half * (number == 2)} to {half * number} of the video's {steps}" in report.summary()
        return result, [step.step for step in report.steps]

    first, early = part(1, host.latent(), host.model)
    second, late = part(2, first, host.model)
    assert early + late and set(early + late) <= set(range(steps)) and all(step >= half for step in late)
    if steps == 4:
        model, report = host.patched()
        whole = host.sample(model, steps=steps)
        assert early + late == sorted(step.step for step in report.steps)
        torch.testing.assert_close(streams(second)[0], streams(whole)[0], rtol=1e-3, atol=1e-3)
        other, late = part(2, first, host.expert())
        assert late and streams(other)[0].isfinite().all()


@pytest.mark.parametrize("host", ["wan22"], indirect=True)
def test_a_second_pass_with_noise_of_its_own_is_a_schedule_of_its_own(host):
    model, report = host.patched()
    first = host.sample(model, steps=4)
    upscaled = host.comfy.run("LatentUpscaleBy", samples=first, upscale_method="bilinear", scale_by=2.0)[0]
    again = host.sample(model, steps=3, denoise=0.4, latent_image=upscaled)
    assert streams(again)[0].isfinite().all() and report.num_steps == 3 and report.steps and accounted(report)


@pytest.mark.parametrize("host", ["ltx2"], indirect=True)
@pytest.mark.parametrize("guider", ["BasicGuider", "CFGGuider", "DualCFGGuider"])
@pytest.mark.parametrize("sampler", ["euler", "res_multistep", "lcm"])
def test_guiders_and_sigmas_of_distilled_models(host, guider, sampler):
    model, report = host.patched()
    latent = host.custom(model, torch.tensor(DISTILLED), guider, sampler)
    assert streams(latent)[0].isfinite().all() and report.steps and accounted(report)
    assert report.num_steps == 8 and len({s.step for s in report.steps}) + len(report.left) == 8


@pytest.mark.parametrize("host", ["wan22"], indirect=True)
@pytest.mark.parametrize("cache", ["EasyCache", "LazyCache"])
def test_caches_that_leave_evaluations_out(host, cache):
    options = {"start_percent": 0.0, "end_percent": 1.0, "reuse_threshold": 0.5, "verbose": False}
    (model,) = host.comfy.run(cache, model=host.model, **options)
    patched, report = host.patched(model=model)
    latent = host.sample(patched, steps=8)
    assert streams(latent)[0].isfinite().all() and report.steps and accounted(report)
    assert not same(latent, host.sample(model, steps=8))


@pytest.mark.parametrize("host", ["wan22"], indirect=True)
def test_a_guider_that_asks_the_model_its_own_way_is_named(host, monkeypatch):
    import comfy.samplers

    monkeypatch.setattr(comfy.samplers.CFGGuider, "outer_predict_noise", comfy.samplers.CFGGuider.predict_noise)
    model, report = host.patched()
    host.sample(model)
    assert not report.steps and "a way of its own" in report.summary() and "No step was corrected" in report.summary()


@pytest.mark.parametrize("host", ["wan22"], indirect=True)
def test_numbers_that_are_not_finite_are_left_out_and_named(host, monkeypatch):
    model, report = host.patched()
    last = host.vae.first_stage_model.decoder[-1]
    original = last.forward
    monkeypatch.setattr(last, "forward", lambda x: original(x) * float("nan"))
    latent = host.sample(model)
    assert same(latent, host.sample())
    assert not report.steps and "not finite" in report.summary()


def test_the_models_own_vae_in_pieces_is_what_it_is_at_once(tiny):
    """Of Wan; each piece is decoded, and encoded, beside its neighbours."""
    from tests.comfyui.tiny_family import TinyFamily

    decoder = TinyFamily(tiny.comfy, "wan", tiny.flow, tiny.discriminator).decoder()
    x0 = torch.randn(9, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = decoder.pictures(x0)
        pieces = decoder.pictures(x0, 4)
        assert pieces.shape == whole.shape == (33, 3, 32, 32)
        assert torch.equal(pieces[:13], whole[:13])
        assert float((pieces - whole).abs().mean()) < 0.5 * float((whole[4:] - whole[:-4]).abs().mean())
        encoded, parts = decoder.latents(whole), decoder.latents(whole, 4)
    assert parts.shape == encoded.shape == x0.shape
    # An untrained autoencoder remembers all that came before; what counts is that each latent is the right one.
    assert float((parts - encoded).abs().mean()) < 0.6 * float((encoded[1:] - encoded[:-1]).abs().mean())


def test_tokens_whose_window_holds_no_step_are_named(tiny):
    """As in each of two samplers of two steps."""
    _, report = tiny.guided(steps=2, start=0.6, stop=0.7)
    assert report.guided == [] and "none of the 2 steps" in report.summary() and "remark" in report.brief()
    assert "none of the" not in tiny.guided(strength=0.0)[1].summary()


@pytest.mark.parametrize("host", ["ltx2", "minimax"], indirect=True)
def test_a_model_whose_prompt_cannot_learn_is_refused_for_tokens_in_words(host, tiny):
    model, _ = host.comfy.run("MotionPromptApply", model=host.model, **tiny._guidance({"vae": host.vae, "stop": 1.0}))
    with pytest.raises(ValueError, match="language model.*guided by its estimate alone.*Steady Motion"):
        host.sample(model)


SWEEP = [
    case
    for case in product(
        NAMES,
        ["euler", "res_multistep", "lcm", "euler_ancestral"],
        [2, 4, 8],
        ["BasicGuider", "CFGGuider", "DualCFGGuider"],
        [False, True],
    )
    if (case[0], case[-1]) != ("hunyuan15", True)  # ComfyUI itself cannot
]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "sampler", "steps", "guider", "masked"), SWEEP)
def test_no_combination_is_off_without_a_word(make, name, sampler, steps, guider, masked):
    host = make(name)
    latent = host.latent()
    if masked:
        video = streams(latent)[0]
        latent["noise_mask"] = torch.ones(1, 1, *video.shape[2:])
        latent["noise_mask"][:, :, :1] = 0
    model, report = host.patched()
    (sigmas,) = host.comfy.run("BasicScheduler", model=host.model, scheduler="simple", steps=steps, denoise=1.0)
    result = host.custom(model, sigmas, guider, sampler, latent)
    assert all(stream.isfinite().all() for stream in streams(result))
    assert accounted(report) and len({s.step for s in report.steps}) + len(report.left) == steps
    assert report.steps or "No step was corrected" in "\n".join(host.lines)


def test_the_sweep_is_as_wide_as_is_said():
    assert len(SWEEP) >= 300
