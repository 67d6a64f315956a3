"""Small video checkpoints with random weights, under the names that the official files have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = ("lavie", "videocrafter", "dynamicrafter")
# As the reference outputs were made with.
SMALL = {
    "lavie": {"num_heads": 1, "num_head_channels": -1, "temporal": "lavie", "in_channels": 4, "norm_groups": 16},
    "videocrafter": {"num_heads": -1, "num_head_channels": 16, "temporal": "lvdm", "in_channels": 4},
    "dynamicrafter": {
        "num_heads": -1,
        "num_head_channels": 16,
        "temporal": "lvdm",
        "in_channels": 8,
        "image_attention": True,
    },
}
FULL = {
    "lavie": {**SMALL["lavie"], "num_heads": 8, "context_dim": 768, "norm_groups": 32},
    "videocrafter": {**SMALL["videocrafter"], "num_head_channels": 64, "context_dim": 1024},
    "dynamicrafter": {**SMALL["dynamicrafter"], "num_head_channels": 64, "context_dim": 1024},
}
SMALL_RESAMPLER = {"embedding": 80, "width": 64, "depth": 4, "heads": 3, "head_width": 16, "queries": 256, "output": 16}
FULL_RESAMPLER = {
    "embedding": 1280,
    "width": 1024,
    "depth": 4,
    "heads": 12,
    "head_width": 64,
    "queries": 256,
    "output": 1024,
}


def official_weights(shapes: dict[str, tuple[int, ...]], seed: int = 1) -> dict[str, Tensor]:
    """Weights that follow from names and shapes; see golden/README.md."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name in sorted(shapes):
        noise = torch.randn(shapes[name], generator=generator)
        if noise.ndim > 1:
            noise = noise * 0.7 / noise[0].numel() ** 0.5
        elif noise.ndim == 1:
            noise = 1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise
        weights[name] = noise
    return weights


def digest(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """As in golden/keys.json."""
    text = "\n".join(f"{name} {tuple(shapes[name])}" for name in sorted(shapes))
    return {"tensors": len(shapes), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def error(found: Tensor, expected: Tensor) -> float:
    """Root mean square error over the standard deviation of what is expected."""
    return float((found - expected).square().mean().sqrt() / expected.std())


class VideoModels:
    """Networks and checkpoints in the ComfyUI of this process.

    Args:
        comfy: see inprocess.py.
    """

    def __init__(self, comfy: Any):
        self.comfy = comfy

    def module(self, name: str) -> Any:
        return self.comfy.module(f"nodes.host.{name}")

    def family(self, name: str) -> Any:
        return self.module(f"video_unet.{name}").FAMILY

    def official(self, family: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """The network's shapes under the names of the official file."""
        return {theirs: shapes[ours] for ours, theirs in self._names(family, shapes).items()}

    def _names(self, family: str, shapes: Any) -> dict[str, str]:
        if family != "lavie":
            return {key: key for key in shapes}
        lavie = self.module("video_unet.lavie")
        blocks = [
            f"{side}_blocks.{i}.{kind}.{j}"
            for side in ("down", "up")
            for i in range(4)
            for kind in ("resnets", "attentions")
            for j in range(3)
        ]
        blocks += [f"down_blocks.{i}.downsamplers.0.conv" for i in range(3)]
        blocks += [f"up_blocks.{i}.upsamplers.0.conv" for i in range(3)]
        layers = {ours: theirs for theirs, ours in lavie._RESNET.items()}
        starts = {lavie.renamed(f"{block}.x").removesuffix(".x"): block for block in blocks}
        starts |= {ours: theirs for theirs, ours in lavie._TOP.items()}
        names = {}
        for key in shapes:
            start = max((s for s in starts if key.startswith(f"{s}.")), key=len)
            rest = key[len(start) + 1 :]
            layer = next((layer for layer in layers if rest.startswith(f"{layer}.")), None)
            if layer is not None and ".transformer_blocks" not in key and "norm" not in start:
                rest = layers[layer] + rest[len(layer) :]
            names[key] = f"{starts[start]}.{rest}"
        return names

    def shapes(self, family: str, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        """Names, as in the official file, and shapes of a network of this size."""
        network = self.module("video_unet.unet").VideoUNet(**config, operations=torch.nn, device="meta")
        return self.official(family, {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()})

    def network(self, family: str, **changes: Any) -> Any:
        """The network of the reference outputs, in fp32."""
        import comfy.ops

        config = {"model_channels": 32, "context_dim": 16, **SMALL[family], **changes}
        weights = official_weights(self.shapes(family, config))
        network = self.module("video_unet.unet").VideoUNet(
            **config, operations=comfy.ops.disable_weight_init, dtype=torch.float32, device="cpu"
        )
        network.load_state_dict({self.family(family).renamed(key): value for key, value in weights.items()})
        return network.eval()

    def model(self, family: str, variant: Any, **changes: Any) -> Any:
        """A MODEL around that network, whose image tokens are taken as they come."""
        from comfy.model_patcher import ModelPatcher

        model_module = self.module("video_unet.model")
        config = model_module.VideoConfig(
            variant, {"model_channels": 32, "context_dim": 16, **SMALL[family], **changes}
        )
        config.set_inference_dtype(torch.float32, None)
        model = model_module.VideoModel(config)
        model.diffusion_model.load_state_dict(self.network(family, **changes).state_dict())
        if variant.image:
            model.image_proj_model = _Tokens()
        return ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))

    def state(self, family: str, seed: int = 1, text: int = 64, vision: int = 64, **changes: Any) -> dict[str, Tensor]:
        """A small checkpoint as a file holds it."""
        config = {"model_channels": 32, "context_dim": text, **SMALL[family], **changes, "norm_groups": 32}
        prefix = "" if family == "lavie" else "model.diffusion_model."
        state = {f"{prefix}{key}": value for key, value in official_weights(self.shapes(family, config), seed).items()}
        if family != "lavie":
            lowest = 0.7
            state["scale_arr"] = torch.cat((torch.linspace(1, lowest, 400), torch.full((1000,), lowest)))
        if family == "dynamicrafter":
            resampler = self.module("video_unet.resampler").Resampler(
                **{**SMALL_RESAMPLER, "embedding": vision, "output": text}, operations=torch.nn, device="meta"
            )
            shapes = {f"image_proj_model.{key}": tuple(t.shape) for key, t in resampler.state_dict().items()}
            state |= official_weights(shapes, seed)
        return state


def encoders_state() -> dict[str, Tensor]:
    """Text encoder, VAE and image encoder under the names that published files have, one number in each tensor."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    shape = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3}
    shape |= {"ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    with torch.device("meta"):
        vae = AutoencoderKL(ddconfig=shape, embed_dim=4).state_dict()
    ends = [f"{part}.{end}" for part in ("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj") for end in _ENDS]
    ends += ["attn.in_proj_weight", "attn.in_proj_bias"]
    norms = [f"{norm}.{end}" for norm in ("ln_pre", "ln_post") for end in _ENDS]
    text = ["token_embedding.weight", "text_projection", "logit_scale", "ln_final.weight", "ln_final.bias"]
    parts = {
        "cond_stage_model.model.": (text, 24, 294),
        "embedder.model.visual.": (["class_embedding", "conv1.weight", "proj", *norms], 32, 392),
        "first_stage_model.": ([*vae], 0, 248),
    }
    names: list[str] = []
    for prefix, (others, layers, count) in parts.items():
        own = [*others, *(f"transformer.resblocks.{layer}.{end}" for layer in range(layers) for end in ends)]
        own += ["positional_embedding"] if layers else []
        assert len(own) == count, prefix
        names += [f"{prefix}{name}" for name in own]
    return {name: torch.full((1,), float(len(name))) for name in names}


_ENDS = ("weight", "bias")


class _Tokens(torch.nn.Module):
    """In the resampler's place: the image tokens of a reference output are given, not made."""

    class proj_in:
        in_features = 16

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


def golden(name: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(GOLDEN / f"{name}.safetensors")


def golden_keys() -> dict[str, Any]:
    return json.loads((GOLDEN / "keys.json").read_text(encoding="utf-8"))


def frames_first(video: Tensor) -> Tensor:
    """(B, C, F, h, w) -> (B * F, C, h, w)."""
    return video.transpose(1, 2).flatten(0, 1)
