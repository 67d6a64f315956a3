"""Prompts with LoRA hooks of their own: ComfyUI changes the weights from one to the next inside an evaluation."""

from __future__ import annotations

import pytest
import torch

from tests.comfyui.tiny_family import TinyFamily

LAYERS = {"frames": "input_blocks.1.1.transformer_blocks.0.attn2.to_k", "wan": "blocks.0.ffn.2"}


@pytest.fixture(scope="module", params=LAYERS)
def video(request, tiny):
    if request.param == "frames":
        return tiny
    return TinyFamily(tiny.comfy, request.param, tiny.flow, tiny.discriminator)


def lora(video, seed, gain):
    """Hooks with a LoRA on one layer."""
    import comfy.hooks

    name = LAYERS[getattr(video, "family", "frames")]
    height, width = video.model.model.diffusion_model.get_submodule(name).weight.shape
    numbers, key = torch.Generator().manual_seed(seed), f"diffusion_model.{name}"
    up, down = (torch.randn(shape, generator=numbers) * gain for shape in ((height, 2), (2, width)))
    weights = {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
    return comfy.hooks.create_hook_lora(weights, 1.0, 0.0)


def halves(video, first, second):
    """Two learnable prompts, one for each half of the picture, with hooks of their own or None."""
    import comfy.hooks

    found = []
    for text, hooks, side in (("a red ball", first, 0), ("a blue cube", second, 1)):
        prompt = video.prompt(text, token_count=1)
        prompt = prompt if hooks is None else comfy.hooks.set_hooks_for_conditioning(prompt, hooks)
        mask = torch.zeros(1, 64, 64)
        mask[..., 32 * side : 32 * side + 32] = 1
        options = {"strength": 1.0, "set_cond_area": "default"}
        found.append(video.comfy.run("ConditioningSetMask", conditioning=prompt, mask=mask, **options)[0])
    return video.comfy.run("ConditioningCombine", conditioning_1=found[0], conditioning_2=found[1])[0]


EXHAUSTIVE = pytest.mark.exhaustive


@pytest.mark.parametrize(
    ("which", "checkpointing"),
    [
        ("one each", "off"),
        pytest.param("one each", "on", marks=EXHAUSTIVE),
        pytest.param("on one of them", "off", marks=EXHAUSTIVE),
        pytest.param("on one of them", "on", marks=EXHAUSTIVE),
    ],
)
def test_the_gradient_is_that_of_the_weights_that_each_prompt_saw(video, which, checkpointing):
    """Autograd was up to 3.6 times the slope: the backward pass read the last prompt's weights."""
    before = video.stock()
    one, two = lora(video, 0, 1.0), lora(video, 1, 1.0)
    positive = halves(video, one, two if which == "one each" else None)
    options = {"epsilon": video.epsilon} if hasattr(video, "epsilon") else {}
    (slope,) = video.slopes(positive=positive, settings={"checkpointing": checkpointing}, **options)
    assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)
    assert torch.equal(video.stock(), before), "the weights are the model's own again"


def test_such_prompts_are_guided(video):
    positive = halves(video, lora(video, 0, 1.0), None)
    guided, report = video.guided(positive=positive)
    assert report.guided == [0, 1]
    assert not torch.equal(guided, video.guided(positive=positive, strength=0.0)[0])
