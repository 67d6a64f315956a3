"""LTX-Video: a transformer, a video VAE of 8 frames a latent that looks ahead, a T5 text encoder. LTX-2 makes sound
beside the picture, and has Gemma for its text."""

from __future__ import annotations

import comfy.model_base
from torch import Tensor

from ..comfy_types import BaseModel, CondLists, Vae
from ..core_functions import newer
from .base import GradientMemory, register_family
from .layouts import LatentVideoFamily


@register_family
class LTXVideo(LatentVideoFamily):
    name = "ltx"
    title = "LTX-Video"
    # Counted for 2B with 97 frames at 768 x 512 in bf16: 10.8 GiB, or 1.4 with checkpoints, where inference is said to
    # take 0.54 GiB.
    memory = GradientMemory(saved=20.1, checkpointed=2.6)

    def matches(self, model: BaseModel) -> bool:
        return isinstance(model, comfy.model_base.LTXV)

    def latents_after(self, vae: Vae) -> int:
        """One, unless the decoder says that it is causal; tiny autoencoders, which say nothing, are."""
        return 0 if getattr(getattr(vae.first_stage_model, "decoder", None), "causal", True) else 1

    def appended(self, conds: CondLists, latents: Tensor) -> int:
        """The keyframes to go by (LTX-Video's guides)."""
        tokens = max((c["keyframe_idxs"].shape[2] for k in conds for c in conds[k] if "keyframe_idxs" in c), default=0)
        return tokens // (latents.shape[-2] * latents.shape[-1])


@register_family
class LTX2(LTXVideo):
    name = "ltx2"
    title = "LTX-2"
    tokens = False

    def matches(self, model: BaseModel) -> bool:
        return isinstance(model, newer(comfy.model_base, "LTXAV", ()))

    def tiny_autoencoder(self, model: BaseModel) -> str | None:
        return "taeltx_2"
