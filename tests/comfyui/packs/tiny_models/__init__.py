"""Nodes that only the tests need: tiny random models.

One file a model family, by the family's name: `FAMILY` makes MODEL, CLIP and VAE; `EMPTY_LATENT` is the node that makes
its empty latents and that node's input for the number of frames; `FRAMES` is how many the tests take; `PROMPT`, if
there is one, makes a conditioning fit for the model.
A model that is too coarse for frames of 64 px says another `SIZE`.
"""

from __future__ import annotations

import importlib
import pkgutil

import torch

from . import dynamicrafter, gradient, hosts, models, native

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


_MODULES = {m.name: importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)}
FAMILIES = {name: module for name, module in _MODULES.items() if hasattr(module, "FAMILY")}


class TinyFamilyModel:
    """A tiny model of one of the families."""

    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"family": (list(FAMILIES),)}}

    def make(self, family):
        return tuple(make() for make in FAMILIES[family].FAMILY)


class TinyClipVision:
    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("CLIP_VISION",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        return (native.tiny_clip_vision(),)


class TinyBetweenImages:
    """DynamiCrafter's model for a video between two images."""

    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        _, clip, vae = dynamicrafter.FAMILY
        return dynamicrafter.tiny_dynamicrafter(variant="512-interp"), clip(), vae()


class TinyDynamiCrafterPrompt:
    """A prompt with an image in it."""

    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",)}}

    def make(self, conditioning):
        return (dynamicrafter.with_image(conditioning),)


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


class GradientFlow:
    """The tests' flow model."""

    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("MOTIONPROMPT_FLOW",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        parts = (models.pack_module(f"motionprompt_core.{n}") for n in ("flow.base", "flow.lucas_kanade", "media.ops"))
        return (models.pack_module("nodes.host.models").ManagedModel(gradient.gradient_flow(*parts)()),)


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
    "TinyFamilyModel": TinyFamilyModel,
    "TinyClipVision": TinyClipVision,
    "TinyBetweenImages": TinyBetweenImages,
    "TinyDynamiCrafterPrompt": TinyDynamiCrafterPrompt,
    "TinyMotionModel": TinyMotionModel,
    "TinyControlNet": TinyControlNet,
    "TinyDiscriminator": TinyDiscriminator,
    "GradientFlow": GradientFlow,
    "TinyHostModel": hosts.TinyHostModel,
    "TinyHostLatent": hosts.TinyHostLatent,
    "LookAtLatent": hosts.LookAtLatent,
}
