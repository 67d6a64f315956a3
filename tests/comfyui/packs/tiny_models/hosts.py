"""Tiny random models of what videos are made with in 2026, as far as this ComfyUI has them: Wan 2.2's experts, LTX-2
(picture and sound), HunyuanVideo 1.5, MiniMax H3; their tiny autoencoders; prompts and start images for them.

Their text encoders have billions of weights, so a prompt is random numbers of the width that the model takes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import comfy.model_base
import comfy.ops
import comfy.sd
import node_helpers
import torch

import nodes

from .models import randomise
from .video import load
from .wan import WAN, tiny_wan

OPERATIONS = comfy.ops.disable_weight_init
LTX2 = {
    "cross_attention_dim": 128,
    "audio_cross_attention_dim": 128,
    "attention_head_dim": 4,
    "audio_attention_head_dim": 4,
    "caption_channels": 64,
    "num_layers": 1,
    "connector_attention_head_dim": 16,
    "connector_num_attention_heads": 4,
}
H3 = {
    "hidden_size": 64,
    "num_layers": 1,
    "token_refiner_num_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 32,
    "ffn_hidden_size": 64,
    "text_dim": 48,
    "timestep_input_dim": 32,
    "time_embed_hidden_size": 64,
    "time_embed_dim": 32,
    "rope_inv_freq_len": 4,
}
HUNYUAN = {
    "in_channels": 65,
    "out_channels": 32,
    "vec_in_dim": None,
    "context_in_dim": 64,
    "hidden_size": 128,
    "mlp_ratio": 4.0,
    "num_heads": 1,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [16, 56, 56],
    "theta": 256,
    "patch_size": [1, 1, 1],
    "qkv_bias": True,
    "guidance_embed": False,
    "byt5": False,
    "meanflow": False,
    "use_cond_type_embedding": True,
    "vision_in_dim": 1152,
    "meanflow_sum": True,
}


def tiny_wan_i2v(seed: int = 0) -> Any:
    from comfy.ldm.wan.model import WanModel

    return load(WanModel(**WAN, in_dim=36, operations=OPERATIONS), seed)


def tiny_animate2(seed: int = 0) -> Any:
    from comfy.ldm.wan.model_animate2 import WanAnimate2Model

    network = WanAnimate2Model(**WAN, in_dim=36, operations=OPERATIONS)
    return load(network, seed, {"config": json.dumps({"transformer": {"model_type": "animate2"}})})


def tiny_ltx2(seed: int = 0) -> Any:
    from comfy.ldm.lightricks.av_model import LTXAVModel

    network = LTXAVModel(**LTX2, operations=OPERATIONS)
    return load(network, seed, {"config": json.dumps({"transformer": LTX2})})


def tiny_hunyuan(seed: int = 0) -> Any:
    from comfy.ldm.hunyuan_video.model import HunyuanVideo, HunyuanVideoParams

    known = {item.name for item in fields(HunyuanVideoParams)}  # older cores lack some
    return load(HunyuanVideo(**{k: v for k, v in HUNYUAN.items() if k in known}, operations=OPERATIONS), seed)


def tiny_h3(seed: int = 0) -> Any:
    from comfy.ldm.minimax.model import MiniMaxH3Model

    return load(MiniMaxH3Model(**H3, operations=OPERATIONS), seed)


def tiny_tae(channels: int, seed: int = 5) -> comfy.sd.VAE:
    """A tiny video autoencoder as ComfyUI loads it, random."""
    import comfy.taesd.taehv

    network = comfy.taesd.taehv.TAEHV(latent_channels=channels)
    randomise(network, seed)
    return comfy.sd.VAE(sd=network.state_dict())


# By name: a model, channels of its latents, width of its prompts, the node of its empty latents, frames.
HOSTS: dict[str, tuple[Callable[[int], Any], int, int, str, int]] = {
    "wan22": (tiny_wan, 16, 4096, "EmptyHunyuanLatentVideo", 9),
    "wan22_i2v": (tiny_wan_i2v, 16, 4096, "EmptyHunyuanLatentVideo", 9),
}
if hasattr(comfy.model_base, "WAN_Animate2"):
    HOSTS["animate2"] = (tiny_animate2, 16, 4096, "EmptyHunyuanLatentVideo", 9)
if hasattr(comfy.model_base, "LTXAV"):
    HOSTS["ltx2"] = (tiny_ltx2, 128, 128, "EmptyLTXVLatentVideo", 17)
if hasattr(comfy.model_base, "HunyuanVideo15"):
    HOSTS["hunyuan15"] = (tiny_hunyuan, 32, 64, "EmptyHunyuanVideo15Latent", 9)
if hasattr(comfy.model_base, "MiniMaxH3"):
    HOSTS["minimax"] = (tiny_h3, 24, 48, "EmptyMiniMaxH3LatentAV", 5)


class TinyHostModel:
    """A tiny model of today's hosts with its tiny autoencoder and a prompt; another seed is another expert."""

    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("MODEL", "CONDITIONING", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"host": (list(HOSTS),), "seed": ("INT", {"default": 0, "min": 0, "max": 1000})}}

    @classmethod
    def IS_CHANGED(cls, host, seed):
        return time.monotonic_ns()  # nothing that a test looks at comes from ComfyUI's cache

    def make(self, host, seed):
        model, channels, width, _, _ = HOSTS[host]
        prompt = torch.randn(1, 8, width, generator=torch.Generator().manual_seed(7))
        conditioning = [[prompt, {"pooled_output": torch.zeros(1, 768)}]]
        return model(seed), with_start(conditioning) if host == "wan22_i2v" else conditioning, tiny_tae(channels)


class TinyHostLatent:
    """The host's own empty latent, with sound where it makes sound; or noise whose first frame a mask keeps."""

    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"host": (list(HOSTS),), "given": ("BOOLEAN", {"default": False})}}

    def make(self, host, given):
        latent = empty_latent(host)
        video = latent["samples"].unbind()[0] if getattr(latent["samples"], "is_nested", False) else latent["samples"]
        if given:
            video.copy_(torch.randn(video.shape, generator=torch.Generator().manual_seed(1)))
            latent["noise_mask"] = torch.ones(1, 1, *video.shape[2:])
            latent["noise_mask"][:, :, 0] = 0
        return (latent,)


def empty_latent(host: str, frames: int | None = None, size: int | None = None) -> dict[str, Any]:
    """Of the node that the host's workflows use."""
    _, _, _, node, length = HOSTS[host]
    size = size or (64 if host == "ltx2" else 32)  # LTX-2 has 32 px in a latent
    made = nodes.NODE_CLASS_MAPPINGS[node].execute(width=size, height=size, length=frames or length)
    latent = made.args[0]
    if host == "ltx2":
        from comfy.nested_tensor import NestedTensor

        latent["samples"] = NestedTensor((latent["samples"], torch.zeros(1, 8, 5, 16)))
    return latent


class LookAtLatent:
    """What a test wants to know of a latent: digests of streams and of the first frame, and whether all is finite."""

    CATEGORY = "tests"
    FUNCTION = "look"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("LATENT",)}}

    def look(self, latent):
        samples = latent["samples"]
        streams = list(samples.unbind()) if getattr(samples, "is_nested", False) else [samples]
        found = {
            "streams": [digest(stream) for stream in streams],
            "first": digest(streams[0][:, :, 0]),
            "finite": all(bool(stream.isfinite().all()) for stream in streams),
        }
        return {"ui": {"text": [json.dumps(found)]}}


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.float().cpu().contiguous().numpy().tobytes()).hexdigest()


def with_start(conditioning: Any, frames: int = 1, latents: int = 3, channels: int = 16, size: int = 4) -> Any:
    """The same prompt with a start image, as the image to video nodes of Wan and HunyuanVideo 1.5 give it."""
    picture = torch.randn(1, channels, latents, size, size, generator=torch.Generator().manual_seed(8))
    mask = torch.ones(1, 1, latents, size, size)
    mask[:, :, :frames] = 0
    return node_helpers.conditioning_set_values(conditioning, {"concat_latent_image": picture, "concat_mask": mask})
