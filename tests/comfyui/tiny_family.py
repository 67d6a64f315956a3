"""The guided sampler on a tiny random model of any family."""

from __future__ import annotations

import sys
from typing import Any

import torch

from tests.comfyui.inprocess import InProcessComfy
from tests.comfyui.tiny import TEXT, Tiny


class TinyFamily(Tiny):
    """`Tiny` with the model of a family; see tests/comfyui/packs/tiny_models.

    Attributes:
        handler: what nodes/host/families has for it.
    """

    def __init__(self, comfy: InProcessComfy, family: str, flow: Any, discriminator: Any):
        self.comfy, self.family = comfy, family
        self.flow, self.discriminator = flow, discriminator
        self.tiny = sys.modules[comfy.node("TinyFamilyModel").__module__].FAMILIES[family]
        self.model, self.clip, self.vae = comfy.run("TinyFamilyModel", family=family)
        self.handler = comfy.module("nodes.host.families").family_of(self.model.model)
        self.learnable = self.prompt(TEXT)
        (rows,) = self.learnable[0][1]["motionprompt"].initial.values()
        self.epsilon = getattr(self.tiny, "EPSILON", 1.2e-3) * float(rows[0].norm())
        self.plain = self.encode(TEXT)
        self.negative = self.encode("blurry")

    def prompt(self, text: str = TEXT, clip: Any = None, **options: Any) -> Any:
        return self._fit(super().prompt(text, clip, **options))

    def encode(self, text: str, clip: Any = None) -> Any:
        return self._fit(super().encode(text, clip))

    def _fit(self, conditioning: Any) -> Any:
        fit = getattr(self.tiny, "PROMPT", None)
        if fit is None:
            return conditioning
        with torch.inference_mode():
            return fit(conditioning)

    def latent(self, frames: int | None = None, size: int | None = None) -> dict[str, Any]:
        node, length = self.tiny.EMPTY_LATENT
        size = size or getattr(self.tiny, "SIZE", 64)
        options = {"width": size, "height": size, "batch_size": 1, length: frames or self.tiny.FRAMES}
        return self.comfy.run(node, **options)[0]

    def decoder(self) -> Any:
        return self.handler.decoder(self.vae, self.model.model, self.latent()["samples"])
