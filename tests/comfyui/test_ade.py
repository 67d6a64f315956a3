"""AnimateDiff-Evolved: motion models, node orders, context windows, FreeInit, prompt schedules."""

from __future__ import annotations

import pytest
import torch

from tests.comfyui.test_oracle import STILL, far

pytestmark = pytest.mark.ade
SCHEDULE = '"0": "a red ball", "2": "a blue cube"'


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_motion_models(tiny_ade, version):
    model = tiny_ade.animatediff(version)
    before = tiny_ade.stock(model=model)
    latents, report = tiny_ade.guided(model=model)
    assert report.guided == [0, 1]
    assert not torch.equal(latents, before)
    off, _ = tiny_ade.guided(model=model, strength=0.0)
    assert torch.equal(off, before)
    assert torch.equal(tiny_ade.stock(model=model), before)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_both_node_orders_make_the_same_video(tiny_ade, version):
    outer, _ = tiny_ade.applied(tiny_ade.animatediff(version))
    inner, _ = tiny_ade.applied()
    inner = tiny_ade.animatediff(version, model=inner)
    videos = [tiny_ade.stock(model=model, positive=tiny_ade.learnable) for model in (outer, inner)]
    assert torch.equal(*videos)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_more_frames_than_the_context_window(tiny_ade, version):
    model = tiny_ade.animatediff(version, context_length=4)
    latent = tiny_ade.latent(frames=7)
    latents, report = tiny_ade.guided(model=model, latent_image=latent, pairs=4)
    assert report.guided == [0, 1]
    frames = {frame for step in report.steps for i in step.iterations for pair in i.pairs for frame in pair}
    assert max(frames) >= 4
    assert latents.isfinite().all()
    assert tiny_ade.checkpointing_error(model=model, latent_image=latent, pairs=4) < 1e-4


def test_windows_that_overlap_by_the_whole_video(tiny_ade):
    """AnimateDiff-Evolved looks at no frame then. What it costs was divided by no windows."""
    (windows,) = tiny_ade.comfy.run(
        "ADE_StandardUniformContextOptions", context_length=2, context_stride=1, context_overlap=3
    )
    model = tiny_ade.animatediff("v2", context_options=windows)
    _, report = tiny_ade.guided(model=model, latent_image=tiny_ade.latent(frames=3))
    assert "that were sampled hold NaN or infinity" in report.summary()


@pytest.mark.parametrize("order", ["outer", "inner"])
def test_each_freeinit_pass_is_guided(tiny_ade, order):
    (passes,) = tiny_ade.comfy.run(
        "ADE_IterationOptsFreeInit",
        iterations=2,
        filter="gaussian",
        d_s=0.25,
        d_t=0.25,
        n_butterworth=4,
        sigma_step=999,
        apply_to_1st_iter=False,
        init_type="FreeInit [sampler sigma]",
    )
    (settings,) = tiny_ade.comfy.run("ADE_AnimateDiffSamplingSettings", iteration_opts=passes)
    if order == "outer":
        model, report = tiny_ade.applied(tiny_ade.animatediff("v2", sample_settings=settings))
    else:
        model, report = tiny_ade.applied()
        model = tiny_ade.animatediff("v2", model=model, sample_settings=settings)
    tiny_ade.stock(model=model, positive=tiny_ade.learnable)
    assert [(step.run, step.step) for step in report.steps] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert report.missed == []


def scheduled(tiny, clip, **options):
    return tiny.comfy.run("ADE_PromptScheduling", prompts=SCHEDULE, clip=clip, max_length=3, **options)[0]


def learnable_clip(tiny):
    return tiny.comfy.run("MotionPromptCLIP", clip=tiny.clip, token_count=1, init_words="real", placement="end")[0]


# Slerp's weights depend, a little, on the embeddings, and so on the tokens; ours are those of the initial tokens.
@pytest.mark.parametrize(("blend", "tolerance"), [("lerp", 1e-4), ("slerp", 2e-2)])
def test_scheduled_prompts_learn(tiny_ade, blend, tolerance):
    model = tiny_ade.animatediff("v2")
    prompt = scheduled(tiny_ade, learnable_clip(tiny_ade), tensor_interp=blend)
    latents, report = tiny_ade.guided(model=model, positive=prompt)
    assert report.guided == [0, 1]
    assert report.steps[0].iterations[0].grad_norm > 0
    off, _ = tiny_ade.guided(model=model, positive=prompt, strength=0.0)
    plain = tiny_ade.stock(model=model, positive=scheduled(tiny_ade, tiny_ade.clip, tensor_interp=blend))
    torch.testing.assert_close(off, plain, rtol=tolerance, atol=tolerance * float(plain.abs().max()))
    assert not torch.equal(latents, off)


def test_embeddings_that_are_no_blend_of_the_prompts_are_refused(tiny_ade):
    [[cond, extras]] = scheduled(tiny_ade, learnable_clip(tiny_ade))
    with pytest.raises(ValueError, match="no weighted sum of the prompts"):
        tiny_ade.guided(positive=[[cond * torch.linspace(0, 1, cond.shape[1])[:, None], extras]])


@pytest.mark.parametrize("strengths", [(0.0, 1.0), (1.0, 0.0)], ids=["begins later", "ends early"])
def test_a_motion_module_that_rests_at_some_steps(tiny_ade, strengths):
    """Of what is noted for a step a part was put back: the sampler found the module on that was to rest, 29 % of the
    range off, and the gradient was five times too long."""
    comfy, keyframes = tiny_ade.comfy, {}
    for start, strength in zip((0.0, 0.5), strengths, strict=True):
        (effect,) = comfy.run("ADE_MultivalDynamic", float_val=strength)
        (made,) = comfy.run("ADE_AnimateDiffKeyframe", start_percent=start, effect_multival=effect, **keyframes)
        keyframes = {"prev_ad_keyframes": made}
    (motion,) = comfy.run("TinyMotionModel", version="v2")
    times = {"start_percent": 0.3, "end_percent": 1.0} if strengths[0] == 0 else {"start_percent": 0.0}
    (motions,) = comfy.run("ADE_ApplyAnimateDiffModel", motion_model=motion, ad_keyframes=made, **times)
    (model,) = comfy.run("ADE_UseEvolvedSampling", model=tiny_ade.model, beta_schedule="autoselect", m_models=motions)
    stock = tiny_ade.stock(model=model, positive=tiny_ade.learnable, cfg=1.0)
    guided, report = tiny_ade.guided(model=model, cfg=1.0, **STILL)
    assert len(report.guided) == 4 and far(guided, stock) < 1e-4


def test_strengths_per_frame_are_differentiable(tiny_ade):
    comfy = tiny_ade.comfy
    (motion,) = comfy.run("TinyMotionModel", version="v2")
    mask = torch.linspace(0.5, 1, 3)[:, None, None].expand(3, 8, 8)
    (scale,) = comfy.run("ADE_MultivalScaledMask", mask=mask, min_float_val=0.0, max_float_val=1.0)
    (motions,) = comfy.run(
        "ADE_ApplyAnimateDiffModel",
        motion_model=motion,
        start_percent=0.0,
        end_percent=1.0,
        scale_multival=scale,
        effect_multival=scale,
    )
    (model,) = comfy.run("ADE_UseEvolvedSampling", model=tiny_ade.model, beta_schedule="autoselect", m_models=motions)
    assert tiny_ade.guided(model=model)[1].guided == [0, 1]


def test_the_loss_sees_the_prompt_alone_or_the_cfg_in_force_under_custom_cfg(tiny_ade):
    """Custom CFG takes the place of the sampler's: "cond" was mixed all the same, and "cfg" twice."""

    def custom(scale):
        (keyframes,) = tiny_ade.comfy.run("ADE_CustomCFGSimple", cfg=scale)
        (settings,) = tiny_ade.comfy.run("ADE_AnimateDiffSamplingSettings", custom_cfg=keyframes)
        return tiny_ade.animatediff("v2", sample_settings=settings)

    def first(model, loss_on):
        report = tiny_ade.guided(model=model, loss_on=loss_on, cfg=5.0, stop=0.25)[1]
        return report.steps[0].iterations[0]

    plain = tiny_ade.animatediff("v2")
    for loss_on in ("cond", "cfg"):
        expected, found = first(plain, loss_on), first(custom(5.0), loss_on)
        assert found.loss == pytest.approx(expected.loss, abs=1e-5)
        assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-2)
    assert first(custom(1.0), "cfg").loss == pytest.approx(first(plain, "cond").loss, abs=1e-5)
