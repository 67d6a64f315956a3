"""The native video models with what people combine them with: samplers, patches, LoRA, ControlNet, windows, nodes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.comfyui.tiny_family import TinyFamily
from tests.comfyui.video_models import error

pytestmark = pytest.mark.inprocess

NATIVE = ("lavie", "videocrafter2", "dynamicrafter")


@pytest.fixture(scope="module", params=NATIVE)
def video(request, tiny):
    return TinyFamily(tiny.comfy, request.param, tiny.flow, tiny.discriminator)


def native(tiny: Any, family: str) -> TinyFamily:
    return TinyFamily(tiny.comfy, family, tiny.flow, tiny.discriminator)


@pytest.mark.parametrize(
    ("family", "every"),
    [("videocrafter2", 4), *(pytest.param(name, 1, marks=pytest.mark.exhaustive) for name in NATIVE)],
)
def test_all_samplers_and_schedulers_are_finite(tiny, family, every):
    """Daily each fourth of them."""
    import comfy.samplers

    video = native(tiny, family)
    latent, names = video.latent(2, size=16), comfy.samplers.KSampler
    # dpm_adaptive takes as long as it likes; what is "_gpu" draws its noise elsewhere
    left_out = [each for each in names.SAMPLERS if each == "dpm_adaptive" or each.endswith("_gpu")]
    runs = [(sampler, "simple") for sampler in names.SAMPLERS if sampler not in left_out]
    runs += [("euler", each) for each in names.SCHEDULERS]
    bad = []
    for sampler, scheduler in runs[::every]:
        found = video.stock(latent_image=latent, sampler_name=sampler, scheduler=scheduler, steps=2)
        if not found.isfinite().all():
            bad.append((sampler, scheduler))
    assert not bad


def test_the_prompt_and_the_negative_prompt_are_never_mixed(video):
    """Evaluated together or one after the other: the same, in the joint norms as in attention over frames."""
    import comfy.samplers

    together = video.stock()
    original = comfy.samplers.calc_cond_batch

    def one_by_one(model, conds, x_in, timestep, model_options):
        alone = [[cond if i == j else None for j, cond in enumerate(conds)] for i in range(len(conds))]
        return [original(model, one, x_in, timestep, model_options)[i] for i, one in enumerate(alone)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.samplers, "calc_cond_batch", one_by_one)
        apart = video.stock()
    assert error(together, apart) < 1e-4


def test_every_frame_sees_every_other(video):
    """What core's own loaders lose: with all temporal layers in place a change of one frame reaches all."""
    model, latent = video.model.model, torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    conds = _conds(video, latent)

    def x0(x):
        with torch.inference_mode():
            sigma = torch.full((3,), 5.0)
            return model.apply_model(x, sigma, transformer_options={"cond_or_uncond": [0]}, **conds)

    changed = latent.clone()
    changed[0] += 1
    moved = (x0(changed) - x0(latent)).abs().amax(dim=(1, 2, 3))
    assert (moved > 1e-3).all()


def _conds(video: TinyFamily, noise: torch.Tensor) -> dict[str, torch.Tensor]:
    ((text, options),) = video.plain
    with torch.inference_mode():
        conds = video.model.model.extra_conds(cross_attn=text, noise=noise, device=torch.device("cpu"), **options)
        return {key: cond.process_cond(batch_size=len(noise), area=None).cond for key, cond in conds.items()}


def test_fps_reaches_the_models_that_have_it(video):
    positive, negative = video.comfy.run("MotionPromptVideoFPS", positive=video.plain, negative=video.negative, fps=8)
    changed = not torch.equal(video.stock(positive=positive, negative=negative), video.stock())
    assert changed == (video.family != "lavie")


def test_the_default_fps_is_the_authors(tiny):
    video = native(tiny, "videocrafter2")
    (same, _) = video.comfy.run("MotionPromptVideoFPS", positive=video.plain, negative=video.negative, fps=28)
    (negative, _) = video.comfy.run("MotionPromptVideoFPS", positive=video.negative, negative=video.negative, fps=28)
    assert torch.equal(video.stock(positive=same, negative=negative), video.stock())


def test_rescaled_cfg_keeps_the_contrast_of_the_clip(video):
    rescaled = video.comfy.module("nodes.host.video_unet.guidance").rescale
    sampling, generator = video.model.model.model_sampling, torch.Generator().manual_seed(0)
    x, cond, uncond = torch.randn(3, 3, 4, 8, 8, generator=generator)
    sigma = torch.full((3,), 2.0)
    plain = uncond + 4 * (cond - uncond)
    torch.testing.assert_close(rescaled(sampling, sigma, x, cond, uncond, 4.0, 0.0), plain, rtol=1e-4, atol=1e-4)

    def predicted(x0):
        offset = sampling.calculate_denoised(sigma, torch.zeros_like(x), x)
        return (x0 - offset) / sampling.calculate_denoised(sigma, torch.ones_like(x), torch.zeros_like(x))

    whole = rescaled(sampling, sigma, x, cond, uncond, 4.0, 1.0)
    assert float(predicted(whole).std()) == pytest.approx(float(predicted(cond).std()), rel=1e-4)
    (model,) = video.comfy.run("MotionPromptRescaleVideoCFG", model=video.model, multiplier=0.7)
    assert not torch.equal(video.stock(model=model), video.stock())
    assert error(video.stock(model=model, cfg=1.0), video.stock(cfg=1.0)) < 1e-5


def test_freeu_and_attention_patches_reach_the_network(video):
    (freeu,) = video.comfy.run("FreeU_V2", model=video.model, b1=1.3, b2=1.4, s1=0.9, s2=0.2)
    (attention,) = video.comfy.run("UNetSelfAttentionMultiply", model=video.model, q=1.2, k=1.0, v=1.0, out=1.0)
    (perturbed,) = video.comfy.run("PerturbedAttentionGuidance", model=video.model, scale=3.0)
    latent = video.latent(2, size=128)  # FreeU divides by nothing where a stage is one pixel
    before = video.stock(latent_image=latent, steps=2)
    for model in (freeu, attention, perturbed):
        found = video.stock(model=model, latent_image=latent, steps=2)
        assert found.isfinite().all() and not torch.equal(found, before)
    assert torch.equal(video.stock(latent_image=latent, steps=2), before)


def test_loras_for_stable_diffusion_reach_the_network(video):
    import comfy.lora

    names = comfy.lora.model_lora_keys_unet(video.model.model, {})
    wanted = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    assert names[wanted] == "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    assert "lora_unet_up_blocks_3_attentions_2_proj_in" in names and "lora_unet_mid_block_attentions_0_proj_in" in names
    weight = dict(video.model.model.named_parameters())[names[wanted]]
    generator = torch.Generator().manual_seed(0)
    lora = {
        f"{wanted}.lora_up.weight": torch.randn(weight.shape[0], 2, generator=generator),
        f"{wanted}.lora_down.weight": torch.randn(2, weight.shape[1], generator=generator),
    }
    import comfy.sd

    model, _ = comfy.sd.load_lora_for_models(video.model, None, lora, 1.0, 0.0)
    assert not torch.equal(video.stock(model=model), video.stock())


def test_controlnet(video):
    (net,) = video.comfy.run("TinyControlNet")
    hint = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    (positive,) = video.comfy.run(
        "ControlNetApply", conditioning=video.plain, control_net=net, image=hint, strength=1.0
    )
    controlled = video.stock(positive=positive)
    assert controlled.isfinite().all() and not torch.equal(controlled, video.stock())
    (learnable,) = video.comfy.run(
        "ControlNetApply", conditioning=video.learnable, control_net=net, image=hint, strength=1.0
    )
    (slope,) = video.slopes(positive=learnable, cfg=1.0, epsilon=video.epsilon)
    assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)


def test_context_windows(video):
    (model,) = video.comfy.run("ContextWindowsManual", model=video.model, context_length=4, context_overlap=2, dim=0)
    (wrong,) = video.comfy.run("ContextWindowsManual", model=video.model, context_length=4, context_overlap=2, dim=2)
    with pytest.raises(ValueError, match="Set dim of Context Windows to 0"):
        video.stock(model=wrong)
    latent = video.latent(6)
    if tuple(map(int, video.comfy.version.split(".")[:2])) < (0, 8):
        with pytest.raises(ValueError, match="Update ComfyUI to 0.8"):
            video.stock(model=model, latent_image=latent)
    else:
        assert video.stock(model=model, latent_image=latent).isfinite().all()
        assert video.guided(model=model, latent_image=latent)[1].guided == [0, 1]
    assert torch.equal(video.stock(model=model), video.stock())  # short enough for one window


def test_what_would_be_silently_wrong_is_refused(tiny):
    video = native(tiny, "dynamicrafter")
    run = video.comfy.run
    (replaced,) = run("ModelSamplingDiscrete", model=video.model, sampling="v_prediction", zsnr=True)
    with pytest.raises(ValueError, match="replaced the noise schedule of DynamiCrafter 512"):
        video.stock(model=replaced)
    (rescaled,) = run("RescaleCFG", model=video.model, multiplier=0.7)
    with pytest.raises(ValueError, match="Use Rescale CFG .Video. in its place"):
        video.stock(model=rescaled)
    patched = video.model.clone()
    patched.set_model_attn2_replace(lambda q, k, v, options: q, "middle", 0)
    with pytest.raises(ValueError, match="replaces the cross-attention.*view of the image"):
        video.stock(model=patched)
    with pytest.raises(ValueError, match="a prompt came without one.*DynamiCrafter Image to Video"):
        video.stock(positive=tiny.plain)
    with pytest.raises(ValueError, match="makes frames as a batch"):
        video.stock(latent_image={"samples": torch.zeros(2, 4, 3, 8, 8)})
    lavie = native(tiny, "lavie")  # whose schedule ComfyUI's own classes can express
    (replaced,) = run("ModelSamplingDiscrete", model=lavie.model, sampling="eps", zsnr=False)
    torch.testing.assert_close(lavie.stock(model=replaced), lavie.stock(), rtol=1e-4, atol=1e-4)


def animated(video: TinyFamily, **inputs: Any) -> Any:
    """DynamiCrafter Image to Video: positive, negative, latent."""
    (vision,) = video.comfy.run("TinyClipVision")
    image = torch.rand(1, 80, 96, 3, generator=torch.Generator().manual_seed(2))
    defaults = {"positive": video.plain, "negative": video.negative, "vae": video.vae, "clip_vision": vision}
    defaults |= {"image": image, "width": 64, "height": 64, "frames": 16, "fps": 0}
    return video.comfy.run("MotionPromptDynamiCrafterImageToVideo", **{**defaults, **inputs})


def test_image_to_video_hands_on_what_the_network_was_trained_on(tiny):
    video = native(tiny, "dynamicrafter")
    positive, negative, latent = animated(video)
    assert latent["samples"].shape == (16, 4, 8, 8)
    ((_, shown),), ((_, blank),) = positive, negative
    assert torch.equal(shown["concat_latent_image"], blank["concat_latent_image"])
    assert shown["dynamicrafter_image"].shape == (1, 257, 64)
    assert not torch.allclose(shown["dynamicrafter_image"], blank["dynamicrafter_image"], atol=1e-2)
    image = torch.rand(1, 80, 96, 3, generator=torch.Generator().manual_seed(7))
    other, *_ = animated(video, image=image)
    options = {"negative": negative, "latent_image": latent, "steps": 2}
    assert not torch.equal(video.stock(positive=other, **options), video.stock(positive=positive, **options))


@pytest.mark.exhaustive  # daily through its workflow, in live servers
def test_between_two_images_and_in_a_loop(tiny):
    video = native(tiny, "dynamicrafter")
    interp = tiny.comfy.node("TinyFamilyModel").__module__
    import sys

    model = sys.modules[f"{interp}.dynamicrafter"].tiny_dynamicrafter(variant="512-interp")
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    positive, negative, latent = animated(video, image=image, end_image=image)
    shown = positive[0][1]["concat_latent_image"]
    assert shown.shape == (16, 4, 8, 8)
    assert torch.equal(shown[0], shown[-1]) and not shown[1:-1].any()
    options = {"positive": positive, "negative": negative, "latent_image": latent, "steps": 2}
    assert video.stock(model=model, **options).isfinite().all()
    with pytest.raises(ValueError, match="disconnect end_image"):
        video.stock(**options)
    one, none, _ = animated(video)
    with pytest.raises(ValueError, match="connect end_image"):
        video.stock(model=model, positive=one, negative=none, latent_image=latent)
    with pytest.raises(ValueError, match="in a video of 16 frames, but the latent has 3"):
        video.stock(model=model, **{**options, "latent_image": video.latent()})
