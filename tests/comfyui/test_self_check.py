"""MotionPrompt Self-Check agrees where gradients are right, and names the part that a test breaks."""

from __future__ import annotations

import re

import pytest
import torch

from tests.comfyui.test_families import FAMILIES
from tests.comfyui.tiny_family import TinyFamily


def check(tiny, **options):
    """The node's report."""
    inputs = {
        "model": tiny.model,
        "positive": tiny.learnable,
        "negative": tiny.negative,
        "latent_image": tiny.latent(),
        "vae": tiny.vae,
        "flow_model": tiny.flow,
        "discriminator": tiny.discriminator,
        "seed": 3,
        "steps": 4,
        "cfg": 5.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        **options,
    }
    (report,) = tiny.comfy.run("MotionPromptSelfCheck", **inputs)
    return report


def verdict(report):
    return report.splitlines()[0].removeprefix("MotionPrompt Self-Check: ")


@pytest.mark.parametrize("family", FAMILIES)
def test_it_agrees_on_every_family(tiny, family):
    video = TinyFamily(tiny.comfy, family, tiny.flow, tiny.discriminator)
    before = video.stock(steps=2)
    report = check(video)
    print(report)
    assert verdict(report) == "agrees", report
    assert "strength 0: exactly the stock sampler's latents" in report
    assert torch.equal(video.stock(steps=2), before)


def half_detached(output, dim):
    kept, cut = output.chunk(2, dim)
    return torch.cat([kept, cut.detach()], dim)


def scaled(output):
    if output.requires_grad:
        output.register_hook(lambda gradient: 0.8 * gradient)
    return output


BROKEN = {
    "text encoder": lambda video: video.clip.cond_stage_model.clip_l.transformer.text_model.final_layer_norm,
    "denoiser": lambda video: video.model.model.diffusion_model.unet.mid,
    "decoder": lambda video: next(m for m in video.vae.first_stage_model.decoder.modules() if hasattr(m, "weight")),
    "flow": lambda video: video.flow.module,
}


@pytest.fixture(scope="module")
def demo(tiny):
    return TinyFamily(tiny.comfy, "demo", tiny.flow, tiny.discriminator)


@pytest.mark.parametrize("part", BROKEN)
def test_it_names_the_part_whose_gradient_is_broken(demo, part):
    dim = -1 if part == "text encoder" else 1
    spoil = scaled if part == "decoder" else lambda output: half_detached(output, dim)
    hook = BROKEN[part](demo).register_forward_hook(lambda module, given, output: spoil(output))
    try:
        report = check(demo)
    finally:
        hook.remove()
    assert verdict(report) == f"disagrees: {part}", report
    assert re.search(r"whole +disagrees", report)
