"""LaVie."""

from __future__ import annotations

from .base import DenoiserCosts, GradientMemory, register_family
from .video_unet import VideoUNetFamily


@register_family
class LaVie(VideoUNetFamily):
    name = "lavie"
    title = "LaVie"
    memory = GradientMemory(saved=10.3, checkpointed=2.1)
    costs = DenoiserCosts(backward=1.08, again=0.73, truncated_backward=0.78, truncated_again=0.50)
    pair_costs = {"AutoencoderKL": 12.3, "AutoencodingEngine": 12.3, "TAESD": 0.65}
