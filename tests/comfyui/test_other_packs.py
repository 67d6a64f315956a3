"""The real ComfyUI-GGUF and IPAdapter_plus, where they are: beside AnimateDiff-Evolved, or in MOTIONPROMPT_PACKS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.comfyui.test_lean_models import assert_corrected_alike
from tests.comfyui.tiny_family import TinyFamily


def load(comfy, name: str) -> None:
    folders = [Path(os.environ.get("MOTIONPROMPT_PACKS", "")), comfy.path / "custom_nodes"]
    found = next((folder / name for folder in folders if (folder / name / "__init__.py").is_file()), None)
    comfy.load_pack(found or pytest.skip(f"{name} is absent (MOTIONPROMPT_PACKS names the folder that it is in)"))


def assert_fits(tiny, model) -> None:
    """The gradient is right, strength 0 is the stock KSampler, and nothing stays behind."""
    (slope,) = tiny.slopes(model=model, epsilon=getattr(tiny, "epsilon", 3e-3))
    assert slope["autograd"] > 1e-6
    assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)
    before = tiny.stock(model=model)
    assert torch.equal(tiny.guided(model=model, strength=0.0)[0], before)
    latents, report = tiny.guided(model=model)
    assert report.guided == [0, 1]
    assert not torch.equal(latents, before)
    assert torch.equal(tiny.stock(model=model), before)


def write_gguf(path: Path, architecture: str, network: torch.nn.Module) -> None:
    """Weights of linear layers in 8 bits, the rest in 32; GGUF has four dimensions at most. The network is left with
    the weights that the pack's layers make of the file: products of a scale and whole numbers, in half precision."""
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    packed = gguf.GGMLQuantizationType.Q8_0
    linear = {f"{name}.weight" for name, m in network.named_modules() if isinstance(m, torch.nn.Linear)}
    writer = gguf.GGUFWriter(str(path), architecture)
    for name, tensor in network.state_dict().items():
        values = tensor.float().numpy()
        if values.ndim > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(values.shape))
            values = values.reshape(len(values), -1)
        if name in linear and values.shape[-1] % 32 == 0:
            quantised = gguf.quants.quantize(values, packed)
            writer.add_tensor(name, quantised, raw_dtype=packed)
            with torch.inference_mode():
                tensor.copy_(torch.from_numpy(gguf.quants.dequantize(quantised, packed)).half())
        else:
            writer.add_tensor(name, values.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(("family", "architecture"), [("wan", "wan"), ("ltx", "ltxv")])
def test_a_gguf_model(tiny, family, architecture):
    import folder_paths

    load(tiny.comfy, "ComfyUI-GGUF")
    video = TinyFamily(tiny.comfy, family, tiny.flow, tiny.discriminator)
    path = Path(folder_paths.models_dir) / "unet" / f"tiny_{family}.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(path, architecture, video.model.model.diffusion_model)
    (model,) = tiny.comfy.run("UnetLoaderGGUF", unet_name=path.name)
    assert "GGMLTensor" in {type(weight).__name__ for weight in model.model.diffusion_model.parameters()}
    assert_fits(video, model)
    assert_corrected_alike(video, model, video.model)


def test_ip_adapter(tiny):
    load(tiny.comfy, "ComfyUI_IPAdapter_plus")
    with torch.inference_mode():  # as a loader node makes it
        adapter, picture = tiny_adapter()
    (model, *_) = tiny.comfy.run(
        "IPAdapterEmbeds", model=tiny.model, ipadapter=adapter, pos_embed=picture, clip_vision="not needed"
    )
    assert not torch.equal(tiny.stock(model=model), tiny.stock())
    assert_fits(tiny, model)


def tiny_adapter(text: int = 64, image: int = 48, tokens: int = 4) -> tuple[dict, torch.Tensor]:
    """Random weights for the tiny SD1.5 model's cross attentions, and an image's embedding."""
    generator = torch.Generator().manual_seed(0)
    down, up = (32, 32, 64, 64, 128, 128), (128, 128, 128, 64, 64, 64, 32, 32, 32)
    layers = {
        f"{2 * number + 1}.to_{kind}_ip.weight": torch.randn(width, text, generator=generator) / 8
        for number, width in enumerate((*down, *up, 128))
        for kind in "kv"
    }
    projection = {
        "proj.weight": torch.randn(tokens * text, image, generator=generator) / 7,
        "proj.bias": torch.zeros(tokens * text),
        "norm.weight": torch.ones(text),
        "norm.bias": torch.zeros(text),
    }
    return {"image_proj": projection, "ip_adapter": layers}, torch.randn(1, image, generator=generator)
