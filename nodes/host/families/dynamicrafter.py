"""DynamiCrafter."""

from __future__ import annotations

from .base import GradientMemory, register_family
from .video_unet import VideoUNetFamily
from .videocrafter import VideoCrafter2


@register_family
class DynamiCrafter(VideoUNetFamily):
    """VideoCrafter2's network with attention to an image, and its costs."""

    name = "dynamicrafter"
    title = "DynamiCrafter"
    memory = GradientMemory(saved=15.8, checkpointed=2.0)
    costs = VideoCrafter2.costs
    pair_costs = VideoCrafter2.pair_costs
