"""Models of no family in this folder, handled by the layout of their latents; the report says so.

What can be had without knowing the model is had: both layouts of blocks are looked for, a decoder may look ahead. What
cannot, such as constants for memory and cost, is SD1.5's, and mode "fast" only saves where there is a UNet.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ..comfy_types import BaseModel, CondLists, Vae
from ..networks import transformer_blocks, unet_layers
from .base import register_family
from .layouts import FramesFamily, LatentVideoFamily


@register_family
class GenericFrames(FramesFamily):
    """Image models other than Stable Diffusion's UNets, whose batch is taken for frames."""

    name = "generic_frames"
    title = "an image model whose batch is the frames"
    generic = True
    in_place = True

    def matches(self, model: BaseModel) -> bool:
        return model.latent_format.latent_dimensions == 2

    def blocks(self, network: nn.Module) -> Iterable[nn.Module]:
        return list(unet_layers(network)) or transformer_blocks(network)

    def early_layers(self, network: nn.Module) -> list[nn.Module]:
        return super().early_layers(network) if hasattr(network, "input_blocks") else []


@register_family
class GenericVideo(LatentVideoFamily):
    """Video models with latents (1, C, T, h, w) whose first latent is the first frame, such as HunyuanVideo's."""

    name = "generic_video"
    title = "a model of latent videos"
    generic = True

    def matches(self, model: BaseModel) -> bool:
        return model.latent_format.latent_dimensions == 3

    def free(self, conds: CondLists, video: Tensor) -> Tensor:
        """Kandinsky 5 is given the first latents themselves, and puts them in place of its own."""
        free = super().free(conds, video)
        for given in (cond.get("time_dim_replace") for entries in conds.values() for cond in entries):
            if isinstance(given, Tensor):
                free[:, :, : given.shape[2]] = 0
        return free

    def latents_after(self, vae: Vae) -> int:
        """One: a causal decoder is none the worse for it."""
        return 1
