"""Bad input is named, with what to do, before the model has been evaluated once."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch


@contextmanager
def no_evaluation(tiny):
    """Fails if the UNet is evaluated within it."""
    evaluations = []
    hook = tiny.model.model.diffusion_model.register_forward_pre_hook(lambda *_: evaluations.append(1))
    try:
        yield
    finally:
        hook.remove()
    assert not evaluations


def refused(tiny, message, **options):
    with no_evaluation(tiny), pytest.raises(ValueError, match=message):
        tiny.guided(**options)


def test_a_video_too_short_for_a_discriminator_of_several_flows(tiny):
    message = "judges 2 flows in a row, between 3 frames, and the video has 2. Make it longer"
    refused(tiny, message, latent_image=tiny.latent(frames=2), discriminator=tiny.make_discriminator(flows=2))


def test_a_video_vae_that_does_not_say_which_latent_holds_which_frame(tiny):
    check = tiny.comfy.module("nodes.host.decode").check_vae
    vae = SimpleNamespace(first_stage_model=object(), latent_dim=3, latent_channels=16, upscale_ratio=8)
    with pytest.raises(ValueError, match="which latent holds which frames"):
        check(vae, 16, 3)


def test_a_language_model_as_text_encoder(tiny):
    import comfy.sd1_clip

    class Gemma(torch.nn.Module):
        def __init__(self, *_):
            super().__init__()
            self.num_layers = 1

    encoder = comfy.sd1_clip.SDClipModel(textmodel_json_config={}, model_class=Gemma)
    clip = SimpleNamespace(cond_stage_model=SimpleNamespace(gemma=encoder))
    with pytest.raises(ValueError, match="Gemma takes no learnable tokens.*CLIP or T5.*language model"):
        tiny.comfy.module("nodes.host.tokens")._encoders(clip, {"gemma": None})


def test_a_conditioning_without_learnable_tokens(tiny):
    refused(tiny, "no learnable tokens.*MotionPrompt Conditioning", positive=tiny.plain)


def test_learnable_tokens_in_the_negative_prompt_only(tiny):
    refused(tiny, "no learnable tokens", positive=tiny.plain, negative=tiny.learnable)


def test_a_conditioning_whose_embeddings_were_mixed(tiny):
    (mixed,) = tiny.comfy.run(
        "ConditioningAverage",
        conditioning_to=tiny.learnable,
        conditioning_from=tiny.encode("grass"),
        conditioning_to_strength=0.5,
    )
    refused(tiny, "changed the embeddings.*Conditioning Average", positive=mixed)


def test_a_negative_window(tiny):
    refused(tiny, r"window is negative.*0\.5.*0\.2", start=0.5, stop=0.2)


def test_frames_too_small_for_the_flow_model(tiny):
    flow = tiny.comfy.module("motionprompt_core.flow.raft")
    raft = tiny.comfy.module("nodes.host.models").ManagedModel(flow.RaftFlow("raft_small"))
    refused(tiny, "raft_small.*64x64 px.*128x128", flow_model=raft)


def test_a_vae_that_does_not_fit(tiny):
    wide = SimpleNamespace(first_stage_model=object(), latent_dim=2, latent_channels=16)
    refused(tiny, "VAE has 16 latent channels.*have 4", vae=wide)
    video = SimpleNamespace(first_stage_model=object(), latent_dim=3, latent_channels=4)
    refused(tiny, "3-dimensional", vae=video)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_count": 80}, r"80 learnable tokens overflow.*at most 75"),
        ({"init_words": " "}, "init word.*empty"),
        ({"init_words": "very realistic smooth motion", "token_count": 2}, "4 tokens.*Set token_count to 4"),
    ],
)
def test_tokens_that_do_not_fit(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        tiny.prompt(**options)


def test_a_model_without_text_encoder(tiny):
    with pytest.raises(ValueError, match="clip is missing"):
        tiny.comfy.module("nodes.host.tokens").learnable_prompt(None, "a ball", "authentic", 1, "end")


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_non_finite_value_falls_back_to_the_plain_prompt_and_says_so(tiny, broken):
    def spoil(module, inputs, flow):
        if broken == "loss":
            return flow * float("nan")
        return flow + (flow - flow.detach()).abs().sqrt()  # the same flow, an infinite slope

    hook = tiny.flow.module.register_forward_hook(spoil)
    try:
        latents, report = tiny.guided()
    finally:
        hook.remove()
    assert report.state == "done"
    assert report.guided == []
    assert [step.fallback is not None for step in report.steps] == [True, True]
    assert "not finite" in report.summary()
    assert "MotionPrompt Self-Check shows which part" in report.summary()
    assert torch.equal(latents, tiny.stock())


def test_a_discriminator_of_another_flow_model_is_noted(tiny):
    core = tiny.comfy.module("motionprompt_core.discriminator.model")
    config = core.DiscriminatorConfig(flow_model="raft_large", img_size=32, depth=1, embed_dim=16, num_heads=2)
    other = tiny.comfy.module("nodes.host.models").ManagedModel(core.FlowDiscriminator(config))
    _, report = tiny.guided(discriminator=other, stop=0.25)
    assert any("raft_large" in note and "gradient" in note for note in report.notes)


def test_rising_sigmas(tiny):
    """Unsampling by Flip Sigmas: steps cannot be told by their noise level, and the noise would be guided."""
    (sigmas,) = tiny.comfy.run("BasicScheduler", model=tiny.model, scheduler="normal", steps=4, denoise=1.0)
    (rising,) = tiny.comfy.run("FlipSigmas", sigmas=sigmas)
    model, _ = tiny.applied()
    with no_evaluation(tiny), pytest.raises(ValueError, match="the sigmas rise"):
        tiny.comfy.run(
            "SamplerCustom",
            model=model,
            add_noise=False,
            noise_seed=1,
            cfg=5.0,
            positive=tiny.learnable,
            negative=tiny.negative,
            sampler=tiny.comfy.run("KSamplerSelect", sampler_name="euler")[0],
            sigmas=rising,
            latent_image=tiny.latent(),
        )


@pytest.mark.parametrize("shape", [(0, 4, 8, 8), (3, 4, 0, 8)])
def test_latents_with_nothing_in_them(tiny, shape):
    check = tiny.comfy.module("nodes.host.families.layouts").FramesFamily.check_latents
    with pytest.raises(ValueError, match=r"there is nothing in them"):
        check(SimpleNamespace(title="a model"), torch.zeros(shape))


@pytest.mark.parametrize("size", [(72, 136), (16, 16)])
def test_sizes_that_the_demo_model_does_not_make(comfy, size):
    model, clip, _ = comfy.run("MotionPromptLoadDemoVideoModel")
    (latent,) = comfy.run("EmptyLatentImage", width=size[0], height=size[1], batch_size=2)
    (text,) = comfy.run("CLIPTextEncode", clip=clip, text="a red ball")
    inputs = {"positive": text, "negative": text, "latent_image": latent, "sampler_name": "euler"}
    with pytest.raises(ValueError, match="sides are multiples of 32 px"):
        comfy.run("KSampler", model=model, seed=0, steps=1, cfg=1.0, scheduler="normal", denoise=1.0, **inputs)


def timed(tiny, conditioning, start, end):
    return tiny.comfy.run("ConditioningSetTimestepRange", conditioning=conditioning, start=start, end=end)[0]


def combined(tiny, first, second):
    return tiny.comfy.run("ConditioningCombine", conditioning_1=first, conditioning_2=second)[0]


def test_a_learnable_prompt_that_has_no_say_at_the_guided_steps(tiny):
    """It was "done", with a gradient of 0 and the plain video."""
    plain = tiny.encode("grass")
    late = combined(tiny, timed(tiny, plain, 0.0, 0.6), timed(tiny, tiny.learnable, 0.6, 1.0))
    refused(tiny, "has no say at any of the guided steps 1 to 2 of 4", positive=late)
    options = {"mask": torch.ones(1, 64, 64), "strength": 0.0, "set_cond_area": "default"}
    (nothing,) = tiny.comfy.run("ConditioningSetMask", conditioning=tiny.learnable, **options)
    refused(tiny, "has no say at any of the guided steps", positive=combined(tiny, nothing, plain))


def test_steps_at_which_the_learnable_prompt_is_silent_are_told(tiny):
    early = combined(tiny, timed(tiny, tiny.learnable, 0.0, 0.3), timed(tiny, tiny.encode("grass"), 0.3, 1.0))
    _, report = tiny.guided(positive=early)
    assert any("has no say at step 2, of the guided steps 1 to 2 of 4" in note for note in report.notes), report.notes


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_and_prompts_that_are_not_finite(tiny, value):
    """The video was NaN, after all the work."""
    spoilt = tiny.latent()
    spoilt["samples"] = spoilt["samples"].clone()
    spoilt["samples"][1, 2, 3, 4] = value
    negative = [[text.clone(), more] for text, more in tiny.negative]
    negative[0][0][0, 3, 1] = value
    for guide in ("tokens", "estimate"):
        refused(tiny, "the latents hold NaN or infinity.*fp16", latent_image=spoilt, guide=guide)
        refused(tiny, "the negative prompt holds NaN or infinity", negative=negative, guide=guide)
    pooled = [[text, {**more, "pooled_output": torch.full((1, 32), value)}] for text, more in tiny.negative]
    refused(tiny, "the negative prompt holds NaN or infinity", negative=pooled)


def test_a_video_that_is_not_finite_is_told(tiny):
    hook = tiny.model.model.diffusion_model.register_forward_hook(lambda module, given, out: out * float("nan"))
    try:
        _, report = tiny.guided()
    finally:
        hook.remove()
    assert any("latents that were sampled hold NaN or infinity" in note for note in report.notes)


def test_a_prompt_that_cfg_0_leaves_out(tiny):
    """It was "done, guided steps 1 to 2", with the stock sampler's video to the bit."""
    with pytest.raises(ValueError, match="cfg is 0, so that the negative prompt alone is sampled"):
        tiny.guided(cfg=0.0)
    assert tiny.guided(cfg=0.0, guide="estimate", discriminator=None)[1].state == "done"


def test_the_half_of_split_sigmas_that_has_no_step(tiny):
    """The estimate's part ended the render with an error of PyTorch's."""
    (sigmas,) = tiny.comfy.run("BasicScheduler", model=tiny.model, scheduler="normal", steps=4, denoise=1.0)
    high, _ = tiny.comfy.run("SplitSigmas", sigmas=sigmas, step=0)
    model, report = tiny.applied(guide="both")
    (guider,) = tiny.comfy.run("CFGGuider", model=model, positive=tiny.learnable, negative=tiny.negative, cfg=5.0)
    tiny.sampled_by(guider, high)
    assert report.state == "off"
    assert "corrected steps: none of 0" in report.summary()


@pytest.mark.parametrize("value", [float("nan"), -0.5, 5.0])
def test_numbers_that_come_by_a_link(tiny, value):
    """ComfyUI holds no link to a widget's range. With NaN the video was the plain one."""
    with pytest.raises(ValueError, match="Steady Motion: strength is .*, expected a number from 0 to 1"):
        tiny.comfy.run("MotionPromptSteadyMotion", model=tiny.model, vae=tiny.vae, strength=value)
    with pytest.raises(ValueError, match=r"Rescale CFG \(Video\): multiplier is"):
        tiny.comfy.run("MotionPromptRescaleVideoCFG", model=tiny.model, multiplier=value)
    with pytest.raises(ValueError, match="Video FPS: fps is"):
        tiny.comfy.run("MotionPromptVideoFPS", positive=tiny.plain, negative=tiny.plain, fps=20 * value)
