"""The demo model inside ComfyUI is the one that was trained outside, and behaves like any other video model."""

from __future__ import annotations

import pytest
import torch

from motionprompt_core.demo.checkpoint import load_demo_weights
from motionprompt_core.estimate.steady import steady
from motionprompt_core.flow import load_flow_model
from motionprompt_tools import world
from research.demo.pipeline import DemoPipeline

pytestmark = pytest.mark.every_version

PROMPT = "a red star moving left on grass"


@pytest.fixture(scope="module")
def demo(comfy):
    return comfy.run("MotionPromptLoadDemoVideoModel")


@pytest.fixture(scope="module")
def pipeline(repo_root):
    return DemoPipeline(load_demo_weights(repo_root / "weights" / "demo_video_model.safetensors"))


def test_clip_is_the_text_encoder_that_was_trained(comfy, demo, pipeline):
    (positive,) = comfy.run("CLIPTextEncode", clip=demo[1], text=PROMPT)
    expected = pipeline.embed(PROMPT)
    torch.testing.assert_close(positive[0][0], expected.detach(), rtol=1e-4, atol=1e-5)


def test_text_encoder_gets_its_weights_where_layers_start_without(comfy, demo, monkeypatch):
    """So they do with dynamic VRAM; where text is encoded on the CPU, CLIP then loads itself while it is made."""
    memory = pytest.importorskip("comfy.memory_management", reason="this ComfyUI has no dynamic VRAM")
    if not hasattr(memory, "aimdo_enabled"):
        pytest.skip("this ComfyUI has no dynamic VRAM")
    (expected,) = comfy.run("CLIPTextEncode", clip=demo[1], text=PROMPT)
    management = pytest.importorskip("comfy.model_management")
    load, without = management.load_models_gpu, []

    def watched(patchers, *args, **kwargs):
        without.extend(name for p in patchers for name, weight in p.model.named_parameters() if weight.is_meta)
        return load(patchers, *args, **kwargs)

    monkeypatch.setattr(memory, "aimdo_enabled", True)
    monkeypatch.setattr(management, "load_models_gpu", watched)
    _, clip, _ = comfy.run("MotionPromptLoadDemoVideoModel")
    assert not without
    (positive,) = comfy.run("CLIPTextEncode", clip=clip, text=PROMPT)
    assert torch.equal(positive[0][0], expected[0][0])


def test_model_predicts_what_it_predicts_outside(comfy, demo, pipeline):
    model = demo[0].model
    x = torch.randn(16, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    context = pipeline.embed(PROMPT).detach()
    for t in (950, 500, 50):
        sigma = model.model_sampling.sigmas[t]
        scaled = x * (sigma**2 + 1).sqrt()  # ComfyUI's x is x_t / alpha
        with torch.inference_mode():
            options = {"cond_or_uncond": [0]}
            x0 = model.apply_model(
                scaled, sigma.expand(16), c_crossattn=context.expand(16, -1, -1), transformer_options=options
            )
            expected = pipeline.predict_x0(x, t, context)
        torch.testing.assert_close(x0, expected, rtol=1e-3, atol=1e-3)


def test_vae_decodes_what_it_encodes(comfy, demo):
    video = world.render(world.random_clip(torch.Generator().manual_seed(1), 0.0))[0][:3].movedim(1, -1)
    (latent,) = comfy.run("VAEEncode", vae=demo[2], pixels=video)
    assert latent["samples"].shape == (3, 4, 16, 16)
    (decoded,) = comfy.run("VAEDecode", vae=demo[2], samples=latent)
    assert (decoded - video).square().mean() < 10**-2.5  # 25 dB


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "lms", "uni_pc", "dpmpp_2m_sde"])
def test_steady_motion_steadies_under_samplers_with_a_memory(comfy, demo, sampler):
    """Under dpmpp_2m and lms it made videos worse: what they remember turned the last corrections around."""
    model, clip, vae = demo
    (positive,) = comfy.run("CLIPTextEncode", clip=clip, text=PROMPT)
    (negative,) = comfy.run("CLIPTextEncode", clip=clip, text="")
    (latent,) = comfy.run("EmptyLatentImage", width=128, height=128, batch_size=8)
    found = []
    for strength in (0.0, 1.0):
        (patched,) = comfy.run("MotionPromptSteadyMotion", model=model, vae=vae, strength=strength)
        options = {"seed": 3, "steps": 10, "cfg": 3.0, "sampler_name": sampler, "scheduler": "normal"}
        options |= {"positive": positive, "negative": negative, "latent_image": latent}
        (sampled,) = comfy.run("KSampler", model=patched, **options)
        (frames,) = comfy.run("VAEDecode", vae=vae, samples=sampled)
        video = frames.movedim(-1, 1)
        found.append(float((steady(video, load_flow_model("lucas_kanade_coarse")) - video).square().mean().sqrt()))
    assert found[1] < 0.5 * found[0]


def test_more_frames_than_it_learnt_are_refused_with_the_number(comfy, demo):
    (positive,) = comfy.run("CLIPTextEncode", clip=demo[1], text=PROMPT)
    (latent,) = comfy.run("EmptyLatentImage", width=128, height=128, batch_size=17)
    with pytest.raises(ValueError, match="17.*16"):
        comfy.run(
            "KSampler",
            model=demo[0],
            seed=0,
            steps=1,
            cfg=1.0,
            positive=positive,
            negative=positive,
            latent_image=latent,
        )


def test_a_damaged_or_foreign_file_is_named(comfy, tmp_path, repo_root):
    load = comfy.module("motionprompt_core.demo.checkpoint").load_demo_weights
    whole = (repo_root / "weights" / "demo_video_model.safetensors").read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="demo model .*damaged.safetensors cannot be read"):
        load(damaged)
    with pytest.raises(ValueError, match="something else.*Restore it from the pack"):
        load(repo_root / "weights" / "demo_discriminator.safetensors")
    with pytest.raises(FileNotFoundError, match="demo model: there is no file"):
        load(tmp_path / "nothing.safetensors")
