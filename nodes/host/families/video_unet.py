"""What LaVie, VideoCrafter2 and DynamiCrafter have in common: nodes/host/video_unet."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..comfy_types import BaseModel
from ..video_unet.model import VideoModel
from .layouts import FramesFamily


class VideoUNetFamily(FramesFamily):
    """Its models are `VideoModel`. The constants were counted on the meta device at 16 x 320 x 512 (docs/cost.md)."""

    def matches(self, model: BaseModel) -> bool:
        return isinstance(model, VideoModel) and model.variant.family == self.name

    def early_layers(self, network: Any) -> list[nn.Module]:
        """The layers of the down-blocks, and of the temporal transformer before them."""
        return network.early_layers()
