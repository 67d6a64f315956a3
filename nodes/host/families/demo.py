"""The demo's text-to-video model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from ....motionprompt_core.demo.unet import Stage
from ..comfy_types import BaseModel
from ..demo_model import DemoUNet
from .base import register_family
from .layouts import FramesFamily


@register_family
class Demo(FramesFamily):
    name = "demo"
    title = "the demo model"

    def matches(self, model: BaseModel) -> bool:
        return isinstance(model.diffusion_model, DemoUNet)

    def blocks(self, network: Any) -> Iterable[nn.Module]:
        """The UNet's stages."""
        return (module for module in network.unet.children() if isinstance(module, Stage))

    def early_layers(self, network: Any) -> list[nn.Module]:
        """The down-blocks."""
        return [network.unet.down0, network.unet.down1, network.unet.down2]
