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


# The big ones take minutes each.
QUICK = ("demo", "frames")


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.exhaustive) for name in FAMILIES]
)
def test_it_agrees_on_every_family(tiny, family):
    video = TinyFamily(tiny.comfy, family, tiny.flow, tiny.discriminator)
    before = video.stock(steps=2)
    report = check(video)
    assert verdict(report) == "agrees", report
    assert "strength 0: exactly the stock sampler's latents" in report
    assert torch.equal(video.stock(steps=2), before)


def half_detached(output, dim):
    kept, cut = output.chunk(2, dim)
    return torch.cat([kept, cut.detach()], dim)


def scaled(output):
    output = output * 1.0
    if output.requires_grad:
        output.register_hook(lambda gradient: 0.8 * gradient)
    return output


BROKEN = {
    "text encoder": lambda video: video.clip.cond_stage_model.clip_l.transformer.text_model.final_layer_norm,
    "denoiser": lambda video: video.model.model.diffusion_model.unet.up0b,
    "decoder": lambda video: next(m for m in video.vae.first_stage_model.decoder.modules() if hasattr(m, "weight")),
    "flow": lambda video: video.flow.module,
}


@pytest.fixture(scope="module")
def demo(tiny):
    return TinyFamily(tiny.comfy, "demo", tiny.flow, tiny.discriminator)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [("denoiser", "flow"), ("text encoder", "decoder")], ids=" and ".join)
def test_it_names_the_parts_whose_gradient_is_broken(demo, parts):
    hooks = []
    for part in parts:
        dim = -1 if part == "text encoder" else 1
        spoil = scaled if part == "decoder" else lambda output, dim=dim: half_detached(output, dim)
        hooks.append(BROKEN[part](demo).register_forward_hook(lambda module, given, output, spoil=spoil: spoil(output)))
    try:
        report = check(demo)
    finally:
        for hook in hooks:
            hook.remove()
    assert verdict(report) == f"disagrees: {', '.join(parts)}", report
    assert re.search(r"whole +disagrees", report)


def test_strength_0_that_changes_something_is_told(demo):
    host = demo.comfy.module("nodes.host.self_check")
    settings = demo.comfy.module("motionprompt_core.guidance.settings").GuidanceSettings()

    def sample(model, positive, number):
        return torch.zeros(1) if model is demo.model else torch.ones(1)

    found = host.self_check(demo.model, demo.learnable, demo.vae, demo.flow, None, settings, 4, sample)
    assert found.verdict == "disagrees: strength 0"
    assert "other latents than the stock sampler's" in found.text()


def test_without_learnable_tokens_it_is_refused_as_a_guided_run_is(demo):
    with pytest.raises(ValueError, match="no learnable tokens"):
        check(demo, positive=demo.plain)


@pytest.mark.parametrize(("devices", "told"), [(("cpu",), False), ((), True)])
def test_a_run_where_it_was_not_tested_names_the_self_check(demo, monkeypatch, devices, told):
    machine = demo.comfy.module("nodes.host.machine")
    monkeypatch.setattr(machine, "TESTED_DEVICES", devices)
    monkeypatch.setattr(machine, "proved", set())
    line = machine.untested(torch.device("cpu"))
    assert ("MotionPrompt Self-Check" in line) == told
    monkeypatch.setattr(machine, "proved", {"cpu"})
    assert machine.untested(torch.device("cpu")) == ""


def test_a_newer_comfyui_than_was_tested_is_told(demo, monkeypatch):
    machine = demo.comfy.module("nodes.host.machine")
    monkeypatch.setattr(machine, "proved", set())
    monkeypatch.setattr(machine, "_version_of_comfyui", lambda: "0.45.2")
    assert "cpu with 0.45.2" in machine.untested(torch.device("cpu"))
