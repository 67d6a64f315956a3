"""Load Video Checkpoint: each family from a file, and files that it cannot run, each named for what it is."""

from __future__ import annotations

import gc
import re
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from motionprompt_tools.convert import convert
from tests.comfyui.video_models import FAMILIES, VideoModels, encoders_state

pytestmark = pytest.mark.inprocess

UNET = "model.diffusion_model."
VISION = "embedder.model.visual."
ATTENTION = "input_blocks.1.1.transformer_blocks.0."


@pytest.fixture(scope="module")
def video(comfy) -> VideoModels:
    return VideoModels(comfy)


@pytest.fixture(scope="module")
def states(video) -> dict[str, dict[str, torch.Tensor]]:
    return {family: video.state(family) for family in FAMILIES}


@pytest.fixture
def load(video, tmp_path):
    """Save tensors under a name and load them."""

    def save_and_load(state: dict[str, torch.Tensor], name: str = "model", variant: str = "auto") -> Any:
        path = tmp_path / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, path)
        return video.module("video_unet.loading").load_video_checkpoint(path, variant)

    return save_and_load


def without(state: dict[str, torch.Tensor], word: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if word not in key}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_becomes_the_model_that_it_holds(video, states, load, family):
    loaded = load(states[family])
    model = loaded.model.model
    assert type(model.diffusion_model).__name__ == "VideoUNet"
    own = model.diffusion_model.state_dict()
    for key, value in states[family].items():
        name = video.family(family).renamed(key.removeprefix(UNET))
        if name in own:
            assert torch.equal(own.pop(name), value), key
    assert not own
    if family == "dynamicrafter":
        for key, value in model.image_proj_model.state_dict().items():
            assert torch.equal(value, states[family][f"image_proj_model.{key}"]), key
    assert (loaded.clip, loaded.vae, loaded.clip_vision) == (None, None, None)
    assert "no text encoder" in "\n".join(loaded.lines) and "no VAE" in "\n".join(loaded.lines)


@pytest.mark.parametrize("family", ["videocrafter", "dynamicrafter"])
def test_prefixes_of_training_programs_and_files_of_the_network_alone(states, load, family):
    wrapped = {f"_forward_module.{key}": value for key, value in states[family].items()}
    bare = {key.removeprefix(UNET): value for key, value in states[family].items()}
    bare |= {"betas": torch.ones(1000), "alphas_cumprod": torch.ones(1000)}
    expected = load(states[family]).model.model.diffusion_model.state_dict()
    for state in (wrapped, bare):
        found = load(state).model.model.diffusion_model.state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def scale_arr(lowest: float) -> dict[str, torch.Tensor]:
    return {"scale_arr": torch.cat((torch.linspace(1, lowest, 400), torch.full((1000,), lowest)))}


def test_which_dynamicrafter_it_is(video, states, load):
    state = states["dynamicrafter"]
    large, unknown = {**state, **scale_arr(0.3)}, without(state, "scale_arr")
    for found, name in (
        (load(state), "512"),
        (load(state, "dynamicrafter_512_interp_v1"), "512-interp"),
        (load(state, variant="512-interp"), "512-interp"),
        (load(large), "1024"),
        (load(unknown, "dynamicrafter_unet_1024"), "1024"),
        (load(unknown, variant="1024"), "1024"),
    ):
        model = found.model.model
        assert model.variant.name == name
        lowest = 0.3 if name == "1024" else 0.7
        assert float(model.model_sampling.sigma_max) == pytest.approx(4518.7 / lowest, rel=1e-3)
        assert type(model.model_sampling).__name__ == "ScaledVSampling"
    small = video.state("dynamicrafter", learned_image_scale=True)
    small = {key.replace("fps_embedding", "framestride_embed"): value for key, value in small.items()}
    model = load(without(small, "scale_arr")).model.model
    assert model.variant.name == "256" and type(model.model_sampling).__name__ == "ScaledSampling"

    with pytest.raises(ValueError, match="does not say which DynamiCrafter.*Set variant"):
        load(unknown)
    with pytest.raises(ValueError, match="variant is 512, but model.safetensors is DynamiCrafter 1024"):
        load(large, variant="512")


def test_schedules(video, states, load):
    lavie, videocrafter = (load(states[f]).model.model.model_sampling for f in ("lavie", "videocrafter"))
    assert float(lavie.sigma_max) == pytest.approx(157.4, abs=0.1)
    assert float(videocrafter.sigma_max) == pytest.approx(20.88, abs=0.01)
    assert torch.equal(lavie.sigma_data_at(lavie.sigmas), torch.ones(1000))
    timesteps = torch.arange(0, 1000, 37)
    scale = video.module("video_unet.sampling").latent_scale(0.7)[timesteps]
    sigmas = videocrafter.sigmas[timesteps]
    torch.testing.assert_close(videocrafter.sigma_data_at(sigmas), 1 / scale, rtol=1e-5, atol=0)
    assert torch.equal(videocrafter.timestep(sigmas), timesteps)


# -- what is refused ---------------------------------------------------------------------------------------------------


def foreign(states: dict[str, dict[str, torch.Tensor]]) -> dict[str, tuple[dict[str, torch.Tensor], str]]:
    """State dicts of other models, by their names and shapes only, and what the error must call them."""
    vc2, dc, lavie = (states[family] for family in ("videocrafter", "dynamicrafter", "lavie"))
    vc1 = without(vc2, "temopral_conv") | {
        f"{UNET}input_blocks.1.2.{ATTENTION}attn1.relative_position_k.embeddings_table": torch.zeros(33, 64)
    }
    first = torch.zeros
    sd = {
        key: value
        for key, value in vc2.items()
        if "temopral" not in key and "init_attn" not in key and ".2." not in key
    }
    return {
        "VideoCrafter1's text-to-video": (vc1, "VideoCrafter1's text-to-video"),
        "VideoCrafter1's image-to-video": (
            {**vc2, f"{UNET}{ATTENTION}attn2.to_k_ip.weight": first(32, 64)},
            "VideoCrafter1's image-to-video",
        ),
        "ToonCrafter": (
            {**dc, "first_stage_model.decoder.conv_out.time_mix_conv.weight": first(3, 3, 3, 1, 1)},
            "ToonCrafter",
        ),
        "LaVie's interpolation": ({**lavie, "conv_in.weight": first(32, 8, 3, 3)}, "LaVie's frame interpolation"),
        "LaVie's super-resolution": ({**lavie, "conv_in.weight": first(32, 7, 3, 3)}, "LaVie's super-resolution"),
        "Stable Diffusion": (sd, "an image model without temporal layers"),
        "Stable Video Diffusion": (
            {f"{UNET}input_blocks.1.1.time_stack.0.attn1.to_q.weight": first(2, 2)},
            "Stable Video Diffusion",
        ),
        "AnimateDiff": ({"down_blocks.0.motion_modules.0.norm.weight": first(2)}, "an AnimateDiff motion model"),
        "a LoRA": ({"lora_unet_mid.lora_up.weight": first(2, 2)}, "a LoRA"),
        "something": ({"layer.weight": first(2)}, "no model that is known here.*layer.weight"),
        "nothing of the network": (without(vc2, ".weight"), "VideoCrafter2.*missing|no model that is known"),
    }


FOREIGN = (
    "VideoCrafter1's text-to-video",
    "VideoCrafter1's image-to-video",
    "ToonCrafter",
    "LaVie's interpolation",
    "LaVie's super-resolution",
    "Stable Diffusion",
    "Stable Video Diffusion",
    "AnimateDiff",
    "a LoRA",
    "something",
    "nothing of the network",
)


@pytest.mark.parametrize("name", FOREIGN)
def test_another_model_is_named(states, load, name):
    state, message = foreign(states)[name]
    with pytest.raises(ValueError, match=message) as caught:
        load(state)
    assert "model.safetensors" in str(caught.value)


def test_the_list_of_foreign_models_is_whole(states):
    assert tuple(foreign(states)) == FOREIGN


def broken(states: dict[str, dict[str, torch.Tensor]]) -> dict[str, tuple[dict[str, torch.Tensor], str]]:
    vc2, dc = states["videocrafter"], states["dynamicrafter"]
    key = f"{UNET}output_blocks.3.0.in_layers.2.weight"
    damaged = vc2[key].clone()
    damaged[0, 0, 0, 0] = float("nan")
    half = dict(list(vc2.items())[::2]) | {
        k: v for k, v in vc2.items() if "init_attn" in k or "input_blocks.1.1" in k or "input_blocks.0" in k
    }
    other_half = without(dict([*dc.items()][::2]), "scale_arr") | {
        k: v for k, v in dc.items() if "input_blocks.1.1" in k or "input_blocks.0" in k or "init_attn" in k
    }
    infinite = dc["image_proj_model.latents"].clone()
    infinite[0, 0, 0] = float("inf")
    whole = {**dc, **encoders_state()}
    nan = torch.full((1,), float("nan"))
    text, vae = "cond_stage_model.model.", "first_stage_model."
    return {
        "half of the keys": (half, "not a whole VideoCrafter2: .* of 1484 tensors are missing"),
        "half without a schedule": (other_half, "not a whole DynamiCrafter: .* tensors are missing"),
        "wrong shape": ({**vc2, key: torch.zeros(2, 2, 3, 3)}, "output_blocks.3.0.in_layers.2.weight has shape"),
        "NaN": ({**vc2, key: damaged}, "damaged: output_blocks.3.0.in_layers.2.weight has NaN"),
        "infinite": ({**dc, "image_proj_model.latents": infinite}, "damaged: latents has NaN or infinite"),
        "no resampler": (without(dc, "image_proj_model"), "image_proj_model"),
        "half a resampler": (without(dc, "image_proj_model.layers.2."), "not a whole image_proj_model"),
        "more layers": ({**vc2, f"{UNET}out.3.weight": torch.zeros(2)}, "1 are unexpected .out.3.weight"),
        "half a text encoder": (without(whole, f"{text}transformer.resblocks.1"), "not a whole text encoder: 132 of"),
        "half a VAE": (without(whole, f"{vae}decoder.up."), "not a whole VAE: .* of 248 tensors are missing"),
        "half an image encoder": (without(whole, f"{VISION}transformer.resblocks.31"), "not a whole image encoder: 12"),
        "NaN in the text encoder": ({**whole, f"{text}ln_final.bias": nan}, "damaged: ln_final.bias has NaN"),
        "NaN in the VAE": ({**whole, f"{vae}post_quant_conv.bias": nan}, "damaged: post_quant_conv.bias has NaN"),
        "NaN in the image encoder": ({**dc, **vision_alone(nan)}, "damaged: embedder.model.visual.ln_pre.bias has NaN"),
    }


def vision_alone(damage: torch.Tensor) -> dict[str, torch.Tensor]:
    own = {key: value for key, value in encoders_state().items() if key.startswith(VISION)}
    return {**own, f"{VISION}ln_pre.bias": damage}


BROKEN = (
    "half of the keys",
    "half without a schedule",
    "wrong shape",
    "NaN",
    "infinite",
    "no resampler",
    "half a resampler",
    "more layers",
    "half a text encoder",
    "half a VAE",
    "half an image encoder",
    "NaN in the text encoder",
    "NaN in the VAE",
    "NaN in the image encoder",
)


def tensor_bytes() -> int:
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.device.type == "cpu":
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_refused_and_leaves_nothing_in_memory(states, load, name):
    state, message = broken(states)[name]
    before = tensor_bytes()
    try:
        load(state)
    except ValueError as error:
        text = str(error)
    else:
        text = "loaded"

    assert re.search(message, text), text
    assert tensor_bytes() <= before + 2**16


def test_files_that_are_none(video, states, tmp_path):
    load = video.module("video_unet.loading").load_video_checkpoint
    pickled, truncated, text = (tmp_path / name for name in ("a.ckpt", "b.safetensors", "c.safetensors"))
    torch.save({"state_dict": states["lavie"]}, pickled)
    with pytest.raises(ValueError, match="a.ckpt is a pickle.*python -m motionprompt_tools convert a.ckpt"):
        load(pickled)
    save_file(states["lavie"], truncated)
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    with pytest.raises(ValueError, match="b.safetensors cannot be read: it is truncated"):
        load(truncated)
    text.write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="c.safetensors cannot be read"):
        load(text)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(tmp_path / "missing.safetensors")


def test_converted_official_files_load(video, states, tmp_path):
    """The pickle as published, through the converter, into a model."""
    pickled, path = tmp_path / "model.ckpt", tmp_path / "model.safetensors"
    torch.save({"module": {f"_forward_module.{k}": v for k, v in states["videocrafter"].items()}}, pickled)
    convert(pickled, path)
    loaded = video.module("video_unet.loading").load_video_checkpoint(path)
    assert loaded.model.model.variant.name == "VideoCrafter2"
    weight = loaded.model.model.diffusion_model.out[2].weight
    torch.testing.assert_close(weight, states["videocrafter"][f"{UNET}out.2.weight"].half().to(weight.dtype))


def test_encoders_are_taken_from_their_places_in_the_file(states, load, monkeypatch):
    """Made small here: what ComfyUI is handed is looked at, not what it makes of it."""
    import comfy.clip_vision
    import comfy.sd

    handed = {}
    monkeypatch.setattr(
        comfy.sd, "load_text_encoder_state_dicts", lambda found, words: handed.update(text=found[0]) or "clip"
    )
    monkeypatch.setattr(comfy.sd, "VAE", lambda sd: handed.update(vae=sd) or "vae")
    monkeypatch.setattr(
        comfy.clip_vision, "load_clipvision_from_sd", lambda sd, prefix, convert: handed.update(vision=sd) or prefix
    )
    parts = encoders_state()
    loaded = load({**states["dynamicrafter"], **parts, "embedder.model.ln_final.weight": torch.zeros(1)})
    assert (loaded.clip, loaded.vae, loaded.clip_vision) == ("clip", "vae", "embedder.model.visual.")
    for name, prefix in (("text", "cond_stage_model.model."), ("vae", "first_stage_model."), ("vision", "")):
        expected = {key.removeprefix(prefix): value for key, value in parts.items() if key.startswith(prefix or VISION)}
        assert handed[name].keys() == expected.keys()
        assert all(torch.equal(handed[name][key], value) for key, value in expected.items())
    assert len(loaded.lines) == 1


def test_encoders_of_another_checkpoint_are_looked_at_too(states, load, video, tmp_path):
    path = tmp_path / "image_model.safetensors"
    save_file({"first_stage_model.decoder.conv_in.weight": torch.full((2,), float("inf"))}, path)
    with pytest.raises(ValueError, match="image_model.safetensors is damaged: first_stage_model.decoder.conv_in"):
        video.module("video_unet.encoders").encoders_of(path)
