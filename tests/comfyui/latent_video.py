"""The guided sampler on tiny random Wan 2.1 and LTX-Video models."""

from __future__ import annotations

from typing import Any

from tests.comfyui.inprocess import InProcessComfy
from tests.comfyui.tiny import Tiny

TEXT = "a (red:1.2) ball rolling"


class TinyLatentVideo(Tiny):
    """`Tiny` with a model whose frames share latents: "wan" (4 frames each) or "ltxv" (8)."""

    def __init__(self, comfy: InProcessComfy, family: str, flow: Any, discriminator: Any):
        self.comfy, self.family = comfy, family
        self.flow, self.discriminator = flow, discriminator
        self.model, self.clip, self.vae = comfy.run("TinyLatentVideoModel", family=family)
        self.learnable = self.prompt(TEXT)
        (rows,) = self.learnable[0][1]["motionprompt"].initial.values()
        self.epsilon = 1.2e-3 * float(rows[0].norm())
        self.plain = self.encode(TEXT)
        self.negative = self.encode("blurry")

    def latent(self, frames: int = 17, size: int = 64) -> dict[str, Any]:
        node = {"wan": "EmptyHunyuanLatentVideo", "ltxv": "EmptyLTXVLatentVideo"}[self.family]
        return self.comfy.run(node, width=size, height=size, length=frames, batch_size=1)[0]
