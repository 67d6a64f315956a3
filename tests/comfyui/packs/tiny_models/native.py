"""Tiny random models of the families that this pack makes native, through its own loader's code."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import comfy.clip_vision
import torch

from .models import TEXT_WIDTH, WIDTH, pack_module, randomise

VISION = {
    "attention_dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_size": 64,
    "image_size": 224,
    "initializer_factor": 1.0,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-5,
    "model_type": "clip_vision_model",
    "num_attention_heads": 2,
    "num_channels": 3,
    "num_hidden_layers": 2,
    "patch_size": 14,
    "projection_dim": 32,
}


def tiny_video_unet(family: str, variant: str, seed: int = 0, **config: Any) -> Any:
    """A MODEL of a variant; `config` as `VideoUNet` takes it."""
    unet, contents, loading = (pack_module(f"nodes.host.video_unet.{name}") for name in ("unet", "contents", "loading"))
    known = pack_module(f"nodes.host.video_unet.{family}").FAMILY
    chosen = next(one for one in known.variants if one.name == variant)
    config = {"model_channels": WIDTH, "context_dim": TEXT_WIDTH, "num_heads": -1, "in_channels": 4, **config}
    state = _weights(unet.VideoUNet(**config, operations=torch.nn), seed)
    resampler = {}
    if chosen.image:
        module = pack_module("nodes.host.video_unet.resampler").Resampler(
            VISION["hidden_size"], 64, 2, 1, 64, 256, TEXT_WIDTH, operations=torch.nn
        )
        resampler = {f"image_proj_model.{key}": value for key, value in _weights(module, seed).items()}
    found = contents.Contents(
        path=Path("tiny.safetensors"),
        family=known,
        variant=chosen,
        shapes={key: tuple(value.shape) for key, value in state.items()},
        unet={key: key for key in state},
        resampler={key.removeprefix("image_proj_model."): key for key in resampler},
    )
    return loading.make_model(found, {**state, **resampler})


def _weights(module: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    randomise(module, seed)
    return {key: value.clone() for key, value in module.state_dict().items()}


def tiny_clip_vision(seed: int = 4) -> Any:
    """A CLIP_VISION of 257 states of width 64."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.json")
        path.write_text(json.dumps(VISION), encoding="utf-8")
        vision = comfy.clip_vision.ClipVisionModel(str(path))
    randomise(vision.model, seed)
    return vision
