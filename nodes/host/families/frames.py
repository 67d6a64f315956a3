"""Stable Diffusion's UNets whose batch is the frames, as AnimateDiff-Evolved has them (SD1.5, SDXL)."""

from __future__ import annotations

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ..comfy_types import BaseModel
from .base import register_family
from .layouts import FramesFamily


@register_family
class StableDiffusionFrames(FramesFamily):
    """The constants are those of SD1.5 with AnimateDiff's motion module v2."""

    name = "frames"
    title = "AnimateDiff"

    def matches(self, model: BaseModel) -> bool:
        return isinstance(model.diffusion_model, UNetModel) and model.latent_format.latent_dimensions == 2
