"""An image, or two, as DynamiCrafter's conditioning."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.utils
import torch
from torch import Tensor

from ..comfy_types import ClipVision, Conditioning, Vae
from .model import ENDS, IMAGE_STATES


def animate(
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    clip_vision: ClipVision,
    first: Tensor,
    last: Tensor | None,
    frames: int,
    size: tuple[int, int],
    fps: float,
) -> tuple[Conditioning, Conditioning, dict[str, Tensor]]:
    """Both prompts with the image in them, and an empty latent.

    Args:
        positive, negative: CONDITIONING. first, last: IMAGE (1, H, W, 3); `last` for a video between two images.
        size: width and height in pixels. fps: frames a second, or 0 for the model's own.
    """
    width, height = size
    start = _fitted(first, width, height)
    latents = vae.encode(start)
    if last is not None:
        end = vae.encode(_fitted(last, width, height))
        latents = torch.cat((latents, torch.zeros_like(latents).repeat(frames - 2, 1, 1, 1), end))
    seen = {
        "concat_latent_image": latents,
        ENDS: last is not None,
        **({"fps": fps} if fps else {}),
    }
    grey = torch.full_like(start, 0.5)  # what the network was trained to see for no image
    empty = torch.zeros(frames, latents.shape[1], *latents.shape[2:])
    return (
        _with(positive, {**seen, IMAGE_STATES: _states(clip_vision, start)}),
        _with(negative, {**seen, IMAGE_STATES: _states(clip_vision, grey)}),
        {"samples": empty},
    )


def with_fps(conditioning: Conditioning, fps: float) -> Conditioning:
    """CONDITIONING with a frame rate for the models that read one."""
    return _with(conditioning, {"fps": fps})


def _fitted(image: Tensor, width: int, height: int) -> Tensor:
    """The first picture of a batch, scaled to the shorter side and cropped in the middle."""
    picture = image[:1, :, :, :3].movedim(-1, 1)
    return comfy.utils.common_upscale(picture, width, height, "bicubic", "center").clamp(0, 1).movedim(1, -1)


def _states(clip_vision: ClipVision, image: Tensor) -> Tensor:
    """CLIP's last hidden states (1, 257, 1280) of the whole image, squashed to a square as in training."""
    return clip_vision.encode_image(image, crop=False)["last_hidden_state"]


def _with(conditioning: Conditioning, entries: Mapping[str, object]) -> Conditioning:
    return [[text, {**options, **entries}] for text, options in conditioning]
