"""What other nodes do to a model stays in force, and is part of what is differentiated."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F


def assert_fits(tiny, model, changes=True, **options):
    """The gradient is right, it is switched off exactly, and `model` is another one than the plain one."""
    (slope,) = tiny.slopes(model=model, **options)
    assert slope["autograd"] > 1e-6
    assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)
    plain = {"positive": options.get("plain", tiny.plain)}
    before = tiny.stock(model=model, **plain)
    assert torch.equal(before, tiny.stock(**plain)) != changes
    off, _ = tiny.guided(model=model, strength=0.0)
    assert torch.equal(off, before)
    latents, report = tiny.guided(model=model)
    assert report.guided == [0, 1]
    assert not torch.equal(latents, before)
    assert torch.equal(tiny.stock(model=model, **plain), before)


def test_attention_patches_as_ip_adapter_makes_them(tiny):
    """Image tokens beside the text's in every cross attention, one kind added and one in place of it."""
    model = tiny.model.clone()
    tokens = torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(0))

    def add(q, k, v, extra_options):
        more = tokens.to(k).repeat(len(k), 1, k.shape[-1] // 64)
        return q, torch.cat((k, more), dim=1), torch.cat((v, 0.5 * more), dim=1)

    def replace(q, k, v, extra_options):
        heads = extra_options["n_heads"]
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, 0.9 * v).transpose(1, 2).flatten(2)

    model.set_model_attn2_patch(add)
    model.set_model_attn2_replace(replace, "middle", 0)
    assert_fits(tiny, model)


class Packed(torch.Tensor):
    """A weight in 8 bits that is unpacked when it is used, made as ComfyUI-GGUF's tensors are: copies are itself."""

    scale: torch.Tensor

    @classmethod
    def of(cls, weight):
        scale = weight.abs().amax() / 127
        packed = (weight / scale).round().to(torch.int8).as_subclass(cls)
        packed.scale = scale
        return packed

    def clone(self, *args, **kwargs):
        return self

    def detach(self, *args, **kwargs):
        return self

    def to(self, *args, **kwargs):
        moved = super().to(*args, **kwargs)
        moved.scale = self.scale
        return moved

    def unpacked(self, dtype):
        return self.as_subclass(torch.Tensor).to(dtype) * self.scale.to(dtype)


@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_quantised_weights(tiny, checkpointing):
    import comfy.ops

    class Operations(comfy.ops.manual_cast):
        class Linear(comfy.ops.manual_cast.Linear):
            def forward_comfy_cast_weights(self, input):
                weight = self.weight.unpacked(input.dtype) if isinstance(self.weight, Packed) else self.weight
                return F.linear(input, weight, self.bias)

    models = sys.modules[f"{tiny.comfy.node('TinyVideoModel').__module__}.models"]
    with torch.inference_mode():
        model = models.tiny_model(0, operations=Operations)
        linear = [m for m in model.model.diffusion_model.modules() if isinstance(m, Operations.Linear)]
        assert linear
        for module in linear:
            module.weight = torch.nn.Parameter(Packed.of(module.weight.detach()), requires_grad=False)
    assert_fits(tiny, model, settings={"checkpointing": checkpointing})
    assert all(type(module.weight) is Packed for module in linear)


def test_lora_hooks_on_the_model(tiny):
    import comfy.hooks

    name = "middle_block.1.transformer_blocks.0.attn2.to_v"
    weight = tiny.model.model.diffusion_model.get_submodule(name).weight
    noise = torch.Generator().manual_seed(0)
    key = f"lora_unet_{name.replace('.', '_')}"
    lora = {f"{key}.lora_up.weight": torch.randn(weight.shape[0], 2, generator=noise) * 0.3}
    lora[f"{key}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=noise) * 0.3
    hooks = comfy.hooks.create_hook_lora(lora, 1.0, 0.0)
    learnable, plain = (comfy.hooks.set_hooks_for_conditioning(c, hooks) for c in (tiny.learnable, tiny.plain))
    (slope,) = tiny.slopes(positive=learnable)
    assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)
    before = tiny.stock(positive=plain)
    assert not torch.equal(before, tiny.stock())
    assert torch.equal(tiny.guided(positive=learnable, strength=0.0)[0], before)
    assert tiny.guided(positive=learnable)[1].guided == [0, 1]
    assert torch.equal(tiny.stock(positive=plain), before)


@pytest.mark.parametrize("order", ["before", "after"])
def test_other_packs_wrappers_stay_chained_and_are_called(tiny, order):
    from comfy.patcher_extension import WrappersMP

    kinds = [
        kind
        for kind in (
            "OUTER_SAMPLE",
            "PREPARE_SAMPLING",
            "SAMPLER_SAMPLE",
            "PREDICT_NOISE",
            "CALC_COND_BATCH",
            "APPLY_MODEL",
            "DIFFUSION_MODEL",
        )
        if hasattr(WrappersMP, kind)
    ]
    called = dict.fromkeys(kinds, 0)

    def wrapper(kind):
        def count(executor, *args, **kwargs):
            called[kind] += 1
            return executor(*args, **kwargs)

        return count

    def with_wrappers(model):
        model = model.clone()
        for kind in kinds:
            model.add_wrapper_with_key(getattr(WrappersMP, kind), "another_pack", wrapper(kind))
        return model

    model = with_wrappers(tiny.model) if order == "before" else tiny.model
    model, report = tiny.applied(model)
    model = with_wrappers(model) if order == "after" else model
    latents = tiny.stock(model=model, positive=tiny.learnable)
    assert report.guided == [0, 1]
    assert torch.equal(latents, tiny.guided()[0])
    assert all(called.values()), called
    assert called["OUTER_SAMPLE"] == called["SAMPLER_SAMPLE"] == 1
    # The guidance looks through everything that changes the prediction.
    assert called["DIFFUSION_MODEL"] > 4 and called["APPLY_MODEL"] > 4


def test_the_functions_that_others_put_around_model_and_cfg_are_called(tiny):
    model, called = tiny.model.clone(), set()

    def around(apply_model, args):
        called.add("model")
        return 0.97 * apply_model(args["input"], args["timestep"], **args["c"])

    def after_cfg(args):
        called.add("cfg")
        return args["denoised"] * 0.99

    model.set_model_unet_function_wrapper(around)
    model.set_model_sampler_post_cfg_function(after_cfg)
    assert_fits(tiny, model)
    assert called == {"model", "cfg"}


def advanced(tiny, model, latent, start, end, positive):
    return tiny.comfy.run(
        "KSamplerAdvanced",
        model=model,
        add_noise="enable" if start == 0 else "disable",
        noise_seed=1,
        steps=8,
        cfg=5.0,
        sampler_name="euler",
        scheduler="normal",
        positive=positive,
        negative=tiny.negative,
        latent_image=latent,
        start_at_step=start,
        end_at_step=end,
        return_with_leftover_noise="enable" if end < 8 else "disable",
    )[0]


def test_two_advanced_ksamplers_hand_over_a_noisy_latent(tiny):
    def both(model, positive):
        return advanced(tiny, model, advanced(tiny, model, tiny.latent(), 0, 4, positive), 4, 8, positive)["samples"]

    plain = both(tiny.model, tiny.plain)
    off, _ = tiny.applied(strength=0.0)
    assert torch.equal(both(off, tiny.learnable), plain)
    model, report = tiny.applied()
    assert not torch.equal(both(model, tiny.learnable), plain)
    assert report.num_steps == 4 and report.guided == [0, 1]


def test_a_discriminator_of_two_flows_in_a_row(tiny):
    judge, latent = tiny.make_discriminator(flows=2), tiny.latent(frames=5)
    (slope,) = tiny.slopes(discriminator=judge, latent_image=latent)
    assert slope["autograd"] > 1e-6
    assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)
    latents, report = tiny.guided(discriminator=judge, latent_image=latent)
    assert report.guided == [0, 1] and not torch.equal(latents, tiny.guided(latent_image=latent)[0])
    single = tiny.guided(latent_image=latent)[1].estimate
    told = [float(line.split("about ")[1].split(" times")[0]) for line in (single, report.estimate)]
    assert told[0] < told[1]  # three frames are decoded, not two
    rows = [row for step in report.steps for iteration in step.iterations for row in iteration.pairs]
    assert rows and all(len(row) == 3 and row[1] - row[0] == row[2] - row[1] > 0 for row in rows)


def test_the_loss_sees_what_differential_diffusion_samples(tiny, monkeypatch):
    """Its mask grows from step to step; the loss blended by the soft mask."""
    import comfy.samplers

    inner, evaluation = comfy.samplers.KSamplerX0Inpaint, tiny.comfy.module("nodes.host.step_pass")._Evaluation
    (model,) = tiny.comfy.run("DifferentialDiffusion", model=tiny.model)
    latent = tiny.latent()
    latent["samples"] = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latent["noise_mask"] = torch.linspace(0, 1, 64).view(1, 1, 64).expand(1, 64, 64).clone()
    seen = {}

    def spy(cls, method, name):
        original = getattr(cls, method)

        def call(self, *args, **kwargs):
            x0 = original(self, *args, **kwargs)
            seen.setdefault(name, x0.detach().clone())
            return x0

        monkeypatch.setattr(cls, method, call)

    spy(evaluation, "predict_x0", "loss")
    tiny.guided(model=model, latent_image=latent, stop=0.25, cfg=1.0, learning_rate=1e-5, strength=1e-3)
    spy(inner, "__call__", "sampler")
    tiny.stock(model=model, positive=tiny.learnable, latent_image=latent, cfg=1.0)
    torch.testing.assert_close(seen["loss"], seen["sampler"], rtol=0, atol=1e-3)
