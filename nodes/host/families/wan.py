"""Wan 2.1 and 2.2: a transformer, a causal video VAE of 4 frames a latent, a umT5 text encoder."""

from __future__ import annotations

from typing import Any

import comfy.model_base

from .base import register_family
from .layouts import LatentVideoFamily


@register_family
class Wan(LatentVideoFamily):
    name = "wan"
    title = "Wan"

    def matches(self, model: Any) -> bool:
        return isinstance(model, comfy.model_base.WAN21)
