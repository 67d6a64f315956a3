"""The two ways in which video models keep their frames: as a batch of images, or as one latent video."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..chunk_decoder import video_decoder
from ..comfy_types import BaseModel, CondLists, Options, Patcher, Vae
from ..decode import FrameDecoder, SliceDecoder, check_vae
from ..networks import transformer_blocks, unet_layers
from .base import ModelFamily, Windows


def check_extent(latents: Tensor) -> None:
    """Raise ValueError for latents without a frame, or without height or width."""
    if not latents.numel():
        raise ValueError(
            f"MotionPrompt: the latents are {_shape(latents)}: there is nothing in them. Check the node that makes the "
            "empty latent: its length or batch_size, width and height."
        )


class FramesFamily(ModelFamily):
    """Latents (F, C, h, w): an image model's, whose batch is the frames; an image VAE decodes each for itself.

    The denoiser has the layout of Stable Diffusion's UNet: lists `input_blocks`, `middle_block`, `output_blocks` of
    `TimestepEmbedSequential`.
    """

    time = 0

    def check_latents(self, latents: Tensor) -> None:
        if getattr(latents, "is_nested", False) or latents.ndim != 4:
            raise ValueError(
                f"MotionPrompt: the latents are {_shape(latents)}, but expected are frames as a batch (frames, "
                f"channels, height, width), as {self.title} has them. Use Empty Latent Image, with batch_size set to "
                "the number of frames. A model that makes sound, or something else than video, cannot be guided."
            )
        check_extent(latents)
        if len(latents) < 2:
            raise ValueError(
                "MotionPrompt: the latent holds one frame, and motion needs at least two. Set batch_size of Empty "
                "Latent Image to the number of frames (16 for AnimateDiff), and sample with a video model."
            )

    def decoder(self, vae: Vae, model: BaseModel, latents: Tensor, conds: CondLists | None = None) -> FrameDecoder:
        check_vae(vae, model.latent_format.latent_channels, 2)
        return FrameDecoder(vae, model)

    def blocks(self, network: nn.Module) -> Iterable[nn.Module]:
        return unet_layers(network)

    def early_layers(self, network: nn.Module) -> list[nn.Module]:
        """The layers of the UNet's down-blocks."""
        return [layer for block in network.get_submodule("input_blocks").children() for layer in block.children()]

    def windows(self, patcher: Patcher, model_options: Options, shape: Iterable[int]) -> Windows | None:
        """Those of ComfyUI, or of AnimateDiff-Evolved."""
        found = super().windows(patcher, model_options, shape)
        options = getattr(patcher.get_attachment("ADE_params"), "context_options", None)
        length = getattr(options, "context_length", None)
        if found is not None or options is None or not length:
            return found
        few = list(shape)[0] < length + (not options.use_on_equal_length)
        return None if few else Windows(length, options.context_overlap or 0, 0)


class LatentVideoFamily(ModelFamily):
    """Latents (1, C, T, h, w): latent 0 is the first frame, each later one holds several; a video VAE decodes them.

    The denoiser is a transformer, whose blocks change their input in place.
    """

    time = 2
    in_place = True

    def check_latents(self, latents: Tensor) -> None:
        if getattr(latents, "is_nested", False) or latents.ndim != 5:
            raise ValueError(
                f"MotionPrompt: the latents are {_shape(latents)}, but expected is a video (1, channels, time, height, "
                f"width), as {self.title} has it. Use this model's own empty latent. If it makes sound as well, only "
                "its estimate can be guided: set guide to estimate, or use Steady Motion."
            )
        check_extent(latents)
        if len(latents) != 1:
            raise ValueError(
                f"MotionPrompt: the latent holds {len(latents)} videos, but one at a time can be guided. Set "
                "batch_size of the empty latent to 1. If these should be frames: this model's empty latent has a "
                "length for them."
            )
        if latents.shape[2] < 2:
            raise ValueError(
                "MotionPrompt: the latent holds one frame, and motion needs at least two. Set length of the empty "
                "latent for videos."
            )

    def decoder(self, vae: Vae, model: BaseModel, latents: Tensor, conds: CondLists | None = None) -> SliceDecoder:
        check_vae(vae, latents.shape[1], 3)
        conds = conds or {}
        appended, leading = self.appended(conds, latents), self.leading(conds, model)
        return video_decoder(vae, model, appended, self.latents_after(vae), leading)

    def latents_after(self, vae: Vae) -> int:
        """Number of later latents that the VAE's decoder looks at when it decodes one; most are causal."""
        return 0

    def appended(self, conds: CondLists, latents: Tensor) -> int:
        """Number of latents at the end that are no frames of the video."""
        return 0

    def leading(self, conds: CondLists, model: BaseModel) -> int:
        """Number of latents before the video that are no frames of it."""
        return 0

    def free(self, conds: CondLists, video: Tensor) -> Tensor:
        """0 in latents that hold a given frame, also where they hold others as well; by the mask that comes with the
        pictures."""
        free = video.new_ones(1, 1, *video.shape[2:])
        for mask in (cond.get("concat_mask") for entries in conds.values() for cond in entries):
            if isinstance(mask, Tensor):
                mask = mask[:, :, None] if mask.ndim == 4 else mask
                given = 1 - mask[:1].to(video).amin(1, keepdim=True).clamp(0, 1)
                # ComfyUI takes what a mask is too short for as not given.
                given = F.pad(given, (0, 0, 0, 0, 0, max(0, video.shape[2] - given.shape[2])))
                free = torch.minimum(free, 1 - F.adaptive_max_pool3d(given, video.shape[2:]))
        return free

    def blocks(self, network: nn.Module) -> Iterable[nn.Module]:
        return transformer_blocks(network)


def _shape(latents: Tensor) -> str | tuple[int, ...]:
    return "nested" if getattr(latents, "is_nested", False) else tuple(latents.shape)
