"""Nodes that only the tests need: tiny random models of the SD1.5 and AnimateDiff kind."""

from __future__ import annotations

import torch

from . import models, video

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TinyVideoModel:
    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"dtype": (list(DTYPES),), "seed": ("INT", {"default": 0, "min": 0, "max": 1000})}}

    def make(self, dtype, seed):
        return models.tiny_model(seed, DTYPES[dtype]), models.tiny_clip(seed + 1), models.tiny_vae(seed + 2)


class TinyLatentVideoModel:
    """Wan 2.1 or LTX-Video, whose frames share latents."""

    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"family": (list(video.FAMILIES),)}}

    def make(self, family):
        return tuple(make() for make in video.FAMILIES[family])


class TinyMotionModel:
    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("MOTION_MODEL_ADE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"version": (["v1", "v2", "v3"],)}}

    def make(self, version):
        return (models.tiny_motion_model(version),)


class TinyControlNet:
    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("CONTROL_NET",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        return (models.tiny_controlnet(),)


class TinyDiscriminator:
    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("MOTIONPROMPT_DISCRIMINATOR",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        core = models.pack_module("motionprompt_core.discriminator.model")
        config = core.DiscriminatorConfig(flow_model="gradient", img_size=64, depth=2, embed_dim=32)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = core.FlowDiscriminator(config)
        return (models.pack_module("nodes.host.models").ManagedModel(network),)


NODE_CLASS_MAPPINGS = {
    "TinyVideoModel": TinyVideoModel,
    "TinyLatentVideoModel": TinyLatentVideoModel,
    "TinyMotionModel": TinyMotionModel,
    "TinyControlNet": TinyControlNet,
    "TinyDiscriminator": TinyDiscriminator,
}
