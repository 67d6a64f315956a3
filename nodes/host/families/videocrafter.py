"""VideoCrafter2."""

from __future__ import annotations

from .base import DenoiserCosts, GradientMemory, register_family
from .video_unet import VideoUNetFamily


@register_family
class VideoCrafter2(VideoUNetFamily):
    name = "videocrafter2"
    title = "VideoCrafter2"
    memory = GradientMemory(saved=15.6, checkpointed=2.0)
    costs = DenoiserCosts(backward=1.01, again=0.83, truncated_backward=0.69, truncated_again=0.55)
    pair_costs = {"AutoencoderKL": 8.0, "AutoencodingEngine": 8.0, "TAESD": 0.43}
