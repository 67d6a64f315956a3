"""Models as they are loaded where memory is short: streamed weights, 8-bit weights; and compiled ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.comfyui.test_steadying import patched


def models_of(tiny):
    return sys.modules[f"{tiny.comfy.node('TinyVideoModel').__module__}.models"]


def tiny_model(tiny, *args, **options):
    with torch.inference_mode():
        return models_of(tiny).tiny_model(0, *args, **options)


def gradient(tiny, model, **options):
    (found,) = tiny.gradients(model=model, stop=0.25, lambda_reg=0.0, **options)
    assert found.isfinite().all() and found.norm() > 0
    return found.flatten()


def assert_guides_like(tiny, model, plain):
    """The gradient is that of the plain model, with checkpoints and without, and a run comes through."""
    exact = gradient(tiny, plain)
    for checkpointing in ("off", "on"):
        found = gradient(tiny, model, checkpointing=checkpointing)
        assert torch.cosine_similarity(found, exact, dim=0) >= 0.99
        assert float(found.norm() / exact.norm()) == pytest.approx(1, abs=0.05)
    latents, report = tiny.guided(model=model)
    assert report.guided == [0, 1] and latents.isfinite().all()
    assert not torch.equal(latents, tiny.stock(model=model))


def with_lora(model):
    """A clone with weight patches on every cross attention, as a LoRA makes them."""
    model, noise = model.clone(), torch.Generator().manual_seed(0)
    weights = {key: weight for key, weight in model.model.state_dict().items() if key.endswith("attn2.to_v.weight")}
    added = model.add_patches({key: (0.05 * torch.randn(w.shape, generator=noise),) for key, w in weights.items()})
    assert len(added) == len(weights) > 10
    return model


def streamed(tiny):
    """ComfyUI's low-memory loading: three quarters of the weights stay behind, and are patched when they are used."""
    from comfy.model_patcher import ModelPatcher

    class Streamed(ModelPatcher):
        def load(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False):
            super().load(device_to, self.model_size() // 4, force_patch_weights, full_load=False)

    plain = tiny_model(tiny)
    model = Streamed(tiny_model(tiny).model, plain.load_device, plain.offload_device)
    return with_lora(model), with_lora(plain)


def test_streamed_weights_with_a_lora(tiny):
    model, plain = streamed(tiny)
    assert_guides_like(tiny, model, plain)
    assert model.model.model_lowvram
    assert any(getattr(module, "weight_function", None) for module in model.model.modules())


def in_8_bits(tiny):
    """What `--fp8_e4m3fn-unet` does, beside the same model with the rounded weights in 32 bits."""
    model, plain = tiny_model(tiny, torch.float8_e4m3fn, torch.float32), tiny_model(tiny)
    rounded = dict(model.model.diffusion_model.named_parameters())
    with torch.inference_mode():
        for name, weight in plain.model.diffusion_model.named_parameters():
            assert rounded[name].dtype == torch.float8_e4m3fn
            weight.copy_(rounded[name].float())
    return model, plain


def test_weights_in_8_bits(tiny):
    assert_guides_like(tiny, *in_8_bits(tiny))


def quantised(tiny, kind: str, top: float, number: Callable[[torch.Tensor], torch.Tensor]):
    """A tiny model whose values have weights of 8 bits with a scale, and a plain one with the same weights."""
    import comfy.ops

    plain = tiny_model(tiny)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models_of(tiny), "randomise", lambda *_: None)
        model = tiny_model(tiny, operations=comfy.ops.mixed_precision_ops({}, torch.float32, full_precision_mm=False))
    state = plain.model.diffusion_model.state_dict()
    told = torch.tensor(list(json.dumps({"format": kind}).encode())).byte()
    for name in [name for name in state if name.endswith("attn2.to_v.weight")]:
        layer = name.removesuffix("weight")
        scale = state[name].abs().max() / top
        state |= {name: number(state[name] / scale), f"{layer}weight_scale": scale}
        state[f"{layer}comfy_quant"] = told
    with torch.inference_mode():
        model.model.diffusion_model.load_state_dict(dict(state))
        for name, weight in plain.model.diffusion_model.named_parameters():
            if name.endswith("attn2.to_v.weight"):
                weight.copy_(state[name].float() * state[f"{name.removesuffix('weight')}weight_scale"])
    assert any(getattr(m, "quant_format", None) for m in model.model.diffusion_model.modules())
    return model, plain


def products_in_8_bits(tiny):
    """ComfyUI's layers that round their input too, as on cards that multiply in 8 bits."""
    import comfy.ops

    if "comfy_quant" not in Path(comfy.ops.__file__).read_text(encoding="utf-8"):
        pytest.skip("this ComfyUI keeps the scales of 8-bit weights in another way")
    return quantised(tiny, "float8_e4m3fn", 448, lambda weight: weight.to(torch.float8_e4m3fn))


def test_products_in_8_bits_are_looked_through(tiny):
    model, plain = products_in_8_bits(tiny)
    layers = [m for m in model.model.diffusion_model.modules() if getattr(m, "quant_format", None)]
    assert len(layers) > 10 and not any(layer._full_precision_mm for layer in layers)
    assert_guides_like(tiny, model, plain)
    assert not any(layer._full_precision_mm for layer in layers)


def test_a_compiled_model(tiny):
    import torch._dynamo
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    (model,) = tiny.comfy.run("TorchCompileModel", model=tiny.model, backend="eager")
    compiled, report = tiny.guided(model=model)
    frames = counters["frames"]["ok"]
    assert frames > 0 and report.guided == [0, 1]
    plain, _ = tiny.guided()
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-3)
    assert torch.equal(tiny.guided(model=model, checkpointing="on")[0].isfinite(), torch.ones_like(plain).bool())
    assert counters["frames"]["ok"] == frames  # nothing was compiled for gradients
    assert_corrected_alike(tiny, model, tiny.model)
    torch._dynamo.reset()


def integers(tiny):
    """Weights as whole numbers with a scale, as ComfyUI's int8 files have them."""
    from comfy import quant_ops

    if "int8_tensorwise" not in getattr(quant_ops, "QUANT_ALGOS", {}):
        pytest.skip("this ComfyUI has no weights in int8")
    return quantised(tiny, "int8_tensorwise", 127, lambda weight: weight.round().to(torch.int8))


def assert_corrected_alike(tiny, *models, **options):
    """The corrected videos are no further apart than the plain ones are, within rounding."""
    found = []
    for model in models:
        steadied, report = patched(tiny, model)
        found.append((tiny.stock(model=steadied, **options), tiny.stock(model=model, **options), report))
    (steady, bare, report), (plain_steady, plain_bare, plain_report) = found
    assert [step.step for step in report.steps] == [step.step for step in plain_report.steps] != []
    rounding, between = float((bare - plain_bare).norm()), float((steady - plain_steady).norm())
    assert between <= 2 * rounding + 1e-3 * float(plain_bare.norm())
    assert float((steady - bare).norm()) > between


@pytest.mark.parametrize("pair", [streamed, in_8_bits, products_in_8_bits, integers])
def test_the_estimate_is_corrected_as_on_the_plain_model(tiny, pair):
    assert_corrected_alike(tiny, *pair(tiny), latent_image=tiny.latent(4), cfg=1.0)


def host_as(tiny, name: str, kept: str):
    """A tiny model of today's hosts as a workflow keeps it, the same as it is, and the host."""
    from comfy.model_patcher import ModelPatcher

    from tests.comfyui.tiny_hosts import TinyHost

    class Streamed(ModelPatcher):
        def load(self, device_to=None, lowvram_model_memory=0, **how):
            super().load(device_to, self.model_size() // 4, **{**how, "full_load": False})

    if name not in sys.modules[tiny.comfy.node("TinyHostModel").__module__].HOSTS:
        pytest.skip(f"this ComfyUI has no {name}")
    host = TinyHost(tiny.comfy, name, tiny.flow)
    if not tiny.comfy.module("nodes.host.checks").encodes(host.vae):
        pytest.skip(f"the tiny autoencoder of {name} only decodes in this ComfyUI")
    plain, model = host.model, host.again()
    if kept == "compiled":
        (model,) = tiny.comfy.run("TorchCompileModel", model=model, backend="eager")
    if kept == "streamed":
        model = Streamed(model.model, model.load_device, model.offload_device)
    if kept == "fp8":
        with torch.inference_mode():
            for one, other in zip(model.model.modules(), plain.model.modules(), strict=True):
                if isinstance(one, torch.nn.Linear) and hasattr(one, "comfy_cast_weights"):
                    setattr(one, "comfy_cast_weights", True)  # noqa: B010
                    one.weight = torch.nn.Parameter(one.weight.to(torch.float8_e4m3fn), requires_grad=False)
                    other.weight.copy_(one.weight.float())
        assert {p.dtype for p in model.model.diffusion_model.parameters()} >= {torch.float8_e4m3fn}
    return host, model, plain


@pytest.mark.exhaustive
@pytest.mark.parametrize("kept", ["streamed", "fp8", "compiled"])
@pytest.mark.parametrize("name", ["wan22", "wan22_i2v", "ltx2", "hunyuan15", "minimax"])
def test_todays_hosts_are_corrected_as_their_plain_models(tiny, name, kept):
    from tests.comfyui.tiny_hosts import streams

    host, model, plain = host_as(tiny, name, kept)
    found = []
    for each in (model, plain):
        steadied, report = host.patched(model=each)
        found.append([streams(host.sample(m))[0] for m in (steadied, each)] + [[s.step for s in report.steps]])
    (steady, bare, steps), (plain_steady, plain_bare, plain_steps) = found
    assert steps == plain_steps != []
    if kept == "streamed":
        assert model.model.model_lowvram
    rounding, between = float((bare - plain_bare).norm()), float((steady - plain_steady).norm())
    assert between <= 2 * rounding + 1e-3 * float(plain_bare.norm())
    assert float((steady - bare).norm()) > between
