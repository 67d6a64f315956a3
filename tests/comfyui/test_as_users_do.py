"""Combinations that people report of other packs, tried here: what cannot be right is refused by name, or said.

Each test names the report that it comes from. Others of the same kinds stand where the part that they are about has its
tests: test_hooks.py, test_tiny_video_vae.py, test_oracle.py, tests/core/test_sources.py.
"""

from __future__ import annotations

import pytest
import torch

from tests.comfyui.test_oracle import compare


def wrapped(model, function):
    model = model.clone()
    model.set_model_unet_function_wrapper(function)
    return model


def every_other_time(module):
    """A cache of steps: each second evaluation is answered with the first's result."""
    kept = {"calls": 0}

    def save_steps(apply, given):
        kept["calls"] += 1
        if kept["calls"] % 2 == 0 and kept["result"].shape == given["input"].shape:
            return kept["result"].detach()
        kept["result"] = apply(given["input"], given["timestep"], **given["c"])
        return kept["result"]

    save_steps.__module__ = module
    return save_steps


def test_a_cache_of_another_pack_keeps_out_of_the_guidance(tiny):
    """Zehong-Ma/ComfyUI-MagCache#38: a second sampler, and more evaluations a step than the cache counts on."""
    model = wrapped(tiny.model, every_other_time("custom_nodes.ComfyUI-MagCache.nodes"))
    guided, report = tiny.guided(model=model, stop=1.0)
    assert report.guided == [0, 1, 2, 3]
    assert all(i.grad_norm > 0 for step in report.steps for i in step.iterations)
    model = wrapped(tiny.model, every_other_time("custom_nodes.ComfyUI-MagCache.nodes"))
    assert not torch.equal(guided, tiny.stock(model=model))


def skipping(model, where):
    """A cache of steps of which nothing says that it is one: each second evaluation gets the first's result."""
    kept = {"calls": 0, "result": torch.zeros(0)}
    model = model.clone()
    owner = model.get_model_object("diffusion_model" if where == "forward" else "diffusion_model.input_blocks.1.1")
    forward = owner.forward

    def or_as_before(compute, x, *args, **kwargs):
        kept["calls"] += 1
        if kept["calls"] % 2 == 0 and kept["shape"] == x.shape:
            return kept["result"].detach()
        kept["result"], kept["shape"] = compute(x, *args, **kwargs), x.shape
        return kept["result"]

    def faster(x, *args, **kwargs):
        return or_as_before(forward, x, *args, **kwargs)

    if where == "wrapper":
        model.add_wrapper_with_key("diffusion_model", "faster", or_as_before)
    elif where == "unet function":
        model = wrapped(model, lambda apply, a: or_as_before(lambda x: apply(x, a["timestep"], **a["c"]), a["input"]))
    else:
        model.add_object_patch(
            "diffusion_model.forward" if where == "forward" else "diffusion_model.input_blocks.1.1.forward", faster
        )
    return model


@pytest.mark.parametrize("where", ["unet function", "wrapper", "forward", "a layer's forward"])
def test_a_cache_that_is_not_known_for_one(tiny, where):
    """chengzeyi/Comfy-WaveSpeed#15 and its kin. The sampler was given what the cache remembered of the guidance's
    evaluations, up to 12 % of the range off; or those were answered from it, with a part of the gradient or none."""
    assert compare(tiny, skipping(tiny.model, where)) == "equal"
    # Without CFG its evaluations are of the sampler's size, and it answers them.
    with pytest.raises(
        ValueError, match="(skipping|test_a_cache).* answered in the model's place.*Switch that node off"
    ):
        tiny.guided(model=skipping(tiny.model, where), cfg=1.0, stop=1.0)


class Tiles:
    """Evaluates each half of a picture by itself, into a buffer that stays; without gradients, as for sampling."""

    buffer = None

    @torch.inference_mode()
    def __call__(self, apply, given):
        x = given["input"]
        if self.buffer is None or self.buffer.shape != x.shape:
            self.buffer = torch.zeros_like(x)
        self.buffer.zero_()
        for half in (slice(0, 4), slice(4, None)):
            self.buffer[..., half] += apply(x[..., half], given["timestep"], **given["c"])
        return self.buffer.clone()


@torch.no_grad()
def shifted(h):
    return h.roll(1, dims=-1)


def blended(h, options):
    """Switches gradients off for a part of what runs through the model."""
    return 0.5 * h + 0.5 * shifted(h)


@pytest.mark.parametrize("which", ["all of it, in a buffer", "a part"])
def test_functions_that_switch_gradients_off_leave_them_on_for_the_guidance(tiny, which):
    """shiimizu/ComfyUI-TiledDiffusion: no gradient, and "done". blepping/ComfyUI-bleh's Deep Shrink: one half too long,
    unnoticed."""
    model = tiny.model.clone()
    if which == "a part":
        model.set_model_input_block_patch(blended)
    else:
        model.set_model_unet_function_wrapper(Tiles())
    (slope,) = tiny.slopes(model=model)
    assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)
    _, report = tiny.guided(model=model, cfg=1.0, stop=0.75)
    assert len(report.guided) == 3 and all(i.grad_norm > 0 for step in report.steps for i in step.iterations)
    assert not shifted(torch.ones(4, requires_grad=True)).requires_grad


def test_who_cuts_off_the_whole_gradient_is_named(tiny):
    def through_numpy(apply, given):
        return torch.from_numpy(apply(given["input"], given["timestep"], **given["c"]).detach().numpy().copy())

    _, report = tiny.guided(model=wrapped(tiny.model, through_numpy), stop=0.25)
    assert any("test_who_cuts_off" in note and "cut off the gradient" in note for note in report.notes)


@pytest.mark.parametrize("loss_on", ["cond", "cfg"])
def test_who_mixes_in_comfyui_s_place_need_not_tell_the_scale(tiny, monkeypatch, loss_on):
    """Extraltodeus/ComfyUI-AutomaticCFG, once its node has run, for every model: KeyError: 'cond_scale'."""
    import comfy.samplers

    def mix(model, x, timestep, uncond, cond, cond_scale, model_options, seed=None):
        conds = [cond, None if cond_scale == 1.0 else uncond]
        a, b = comfy.samplers.calc_cond_batch(model, conds, x, timestep, model_options)
        mixed = b + cond_scale * (a - b)
        for function in model_options.get("sampler_post_cfg_function", ()):
            mixed = function({"denoised": mixed, "cond_denoised": a, "uncond_denoised": b, "input": x})
        return mixed

    expected = tiny.gradients(loss_on=loss_on, stop=0.25)
    monkeypatch.setattr(comfy.samplers, "sampling_function", mix)
    torch.testing.assert_close(tiny.gradients(loss_on=loss_on, stop=0.25), expected, rtol=1e-3, atol=1e-6)


def test_sage_attention_that_another_node_left_in_comfyui(tiny, monkeypatch):
    """kijai/ComfyUI-KJNodes#269: Patch Sage Attention stays in ComfyUI's modules. thu-ml/SageAttention#60: it has no
    backward pass, and the rest of the network made a gradient that looked like one."""
    import comfy.ldm.modules.attention as attention

    def attention_sage(q, k, v, heads, mask=None, **options):
        with torch.no_grad():
            return attention.attention_pytorch(q, k, v, heads, mask, **options)

    attention_sage.__module__ = "custom_nodes.ComfyUI-KJNodes.nodes.model_optimization_nodes"
    monkeypatch.setattr(attention, "optimized_attention", attention_sage)
    (slope,) = tiny.slopes()
    assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)
    assert attention.optimized_attention is attention_sage


@pytest.mark.parametrize("options", [{"lambda_disc": 0.0}, {"discriminator": None}], ids=["weights", "discriminator"])
def test_no_loss_that_pulls(tiny, options):
    """It was "done", with the plain video."""
    with pytest.raises(ValueError, match="no loss is left to guide by"):
        tiny.guided(lambda_tv=0.0, **options)


def test_a_prompt_whose_area_has_no_strength(tiny):
    """Comfy-Org/ComfyUI#5917's kind: the prompt is there, and has no say."""
    (silent,) = tiny.comfy.run("ConditioningSetAreaStrength", conditioning=tiny.learnable, strength=0.0)
    both = tiny.comfy.run("ConditioningCombine", conditioning_1=silent, conditioning_2=tiny.encode("grass"))[0]
    with pytest.raises(ValueError, match="no say at any of the guided steps"):
        tiny.guided(positive=both)


def test_a_model_that_does_not_listen_to_the_prompt_is_told(tiny):
    (deaf,) = tiny.comfy.run("UNetCrossAttentionMultiply", model=tiny.model, q=1.0, k=1.0, v=1.0, out=0.0)
    _, report = tiny.guided(model=deaf)
    assert any("Nothing reached the learnable tokens" in note for note in report.notes)


def test_wan_animate_puts_its_reference_first(tiny):
    """kijai/ComfyUI-WanVideoWrapper#1305; ComfyUI's newest have a second such model."""
    import comfy.model_base

    family = tiny.comfy.module("nodes.host.families.wan").Wan()
    for name in ("WAN22_Animate", "WAN_Animate2"):
        kind = getattr(comfy.model_base, name, None)
        if kind is not None:
            assert family.leading({}, kind.__new__(kind)) == 1
    assert family.leading({}, comfy.model_base.WAN21.__new__(comfy.model_base.WAN21)) == 0


def changed_after(tiny, clip, how):
    """The CLIP behind a node of ComfyUI's: Clip Set Last Layer, or a LoRA for the text encoder."""
    import comfy.sd

    if how == "clip skip":
        return tiny.comfy.run("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-2)[0]
    weights = tiny.clip.cond_stage_model.state_dict()
    name = next(key for key in weights if key.endswith("q_proj.weight"))
    (height, width), numbers = weights[name].shape, torch.Generator().manual_seed(0)
    up, down = (0.3 * torch.randn(shape, generator=numbers) for shape in ((height, 2), (2, width)))
    key = f"text_encoders.{name.removesuffix('.weight')}"
    lora = {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
    with torch.inference_mode():
        return comfy.sd.load_lora_for_models(tiny.model, clip, lora, 0.0, 1.0)[1]


@pytest.mark.parametrize("how", ["clip skip", "LoRA"])
def test_a_text_encoder_that_is_changed_after_motionprompt_clip(tiny, how):
    """Comfy-Org/ComfyUI#2445's kind: the change counts for the tokens, too."""
    (learnable,) = tiny.comfy.run(
        "MotionPromptCLIP", clip=tiny.clip, token_count=1, init_words="smooth", placement="end"
    )
    positive = tiny.encode("a red ball", clip=changed_after(tiny, learnable, how))
    plain = tiny.stock(positive=tiny.encode("a red ball", clip=changed_after(tiny, tiny.clip, how)))
    assert not torch.equal(plain, tiny.stock(positive=tiny.encode("a red ball")))
    assert torch.equal(tiny.guided(positive=positive, strength=0.0)[0], plain)
    _, report = tiny.guided(positive=positive)
    assert all(i.grad_norm > 0 for step in report.steps for i in step.iterations)


def test_other_ways_of_cfg_are_told_where_the_loss_is_to_see_cfg(tiny):
    """comfyanonymous/ComfyUI_experiments#12 (Rescale CFG): what is sampled is not mixed by one number."""
    (model,) = tiny.comfy.run("RescaleCFG", model=tiny.model, multiplier=0.7)
    notes = {loss_on: tiny.guided(model=model, loss_on=loss_on)[1].notes for loss_on in ("cfg", "cond")}
    assert any("RescaleCFG" in note and "loss_on cond" in note for note in notes["cfg"])
    assert not any("RescaleCFG" in note for note in notes["cond"])
    assert not any("mix" in note for note in tiny.guided(loss_on="cfg")[1].notes)


def sampled_by(tiny, guider):
    (sigmas,) = tiny.comfy.run("BasicScheduler", model=tiny.model, scheduler="normal", steps=4, denoise=1.0)
    tiny.sampled_by(guider, sigmas)


def test_guiders_that_mix_by_themselves_are_told(tiny):
    """Dual CFG and PerpNeg evaluate three prompts."""
    dual = {"cond1": tiny.learnable, "cond2": tiny.encode("grass"), "cfg_conds": 4.0, "cfg_cond2_negative": 2.0}
    perp = {"positive": tiny.learnable, "empty_conditioning": tiny.encode(""), "cfg": 5.0, "neg_scale": 1.0}
    plain = {"positive": tiny.learnable, "cfg": 5.0}
    for node, inputs in (("DualCFGGuider", dual), ("PerpNegGuider", perp), ("CFGGuider", plain)):
        model, report = tiny.applied()
        (guider,) = tiny.comfy.run(node, model=model, negative=tiny.negative, **inputs)
        sampled_by(tiny, guider)
        assert report.guided == [0, 1]
        assert any("in a way of its own" in note for note in report.notes) == (node != "CFGGuider"), (
            node,
            report.notes,
        )


def test_two_halves_of_a_schedule_have_a_report_each(tiny):
    """welltop-cn/ComfyUI-TeaCache#15's kind: KSampler (Advanced) twice, on one patched model."""
    model, report = tiny.applied(stop=1.0)
    halves, latent = [], tiny.latent()
    for start, end in ((0, 3), (3, 10000)):
        (latent,) = tiny.comfy.run(
            "KSamplerAdvanced",
            model=model,
            add_noise="enable" if start == 0 else "disable",
            noise_seed=1,
            steps=6,
            cfg=5.0,
            sampler_name="euler",
            scheduler="normal",
            positive=tiny.learnable,
            negative=tiny.negative,
            latent_image=latent,
            start_at_step=start,
            end_at_step=end,
            return_with_leftover_noise="enable" if start == 0 else "disable",
        )
        halves.append(latent)
    texts = [tiny.comfy.run("MotionPromptReport", report=report, latent=half)[1] for half in halves]
    assert texts[0] != texts[1]


def test_estimates_are_captured_where_a_guider_mixes_by_itself(tiny, tmp_path, monkeypatch):
    """Extraltodeus/ComfyUI-AutomaticCFG#24's kind: CFG functions are not what every guider asks."""
    training = tiny.comfy.module("nodes.host.training")
    monkeypatch.setattr(training, "capture_folder", lambda name: tmp_path / name)
    models = {"vae": tiny.vae, "flow_model": tiny.flow, "name": "dual", "pairs": 2, "max_gap": 1}
    (model,) = tiny.comfy.run("MotionPromptCaptureFlow", model=tiny.model, start=0.0, stop=1.0, **models)
    prompts = {"cond1": tiny.plain, "cond2": tiny.encode("grass"), "cfg_conds": 4.0, "cfg_cond2_negative": 2.0}
    (guider,) = tiny.comfy.run("DualCFGGuider", model=model, negative=tiny.negative, **prompts)
    sampled_by(tiny, guider)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
