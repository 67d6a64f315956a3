"""What a sampler's latents hold. Models that make sound with the video (LTX-2, MiniMax H3) have both sampled as one
flat row of numbers, the video first; ComfyUI tells the shapes apart from it (`latent_shapes`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Streams:
    """The video within a sampler's latents, and what else is in them.

    Args:
        latents: as the sampler has them, for their shape.
        shapes: of what is packed in them; None, or a single one, where nothing is.
    """

    def __init__(self, latents: Tensor, shapes: Sequence[Sequence[int]] | None = None):
        self.shapes = [tuple(shape) for shape in shapes or ()] or [tuple(latents.shape)]
        self.packed = len(self.shapes) > 1

    @property
    def video_shape(self) -> tuple[int, ...]:
        return self.shapes[0]

    def video(self, latents: Tensor) -> Tensor:
        """The video's latents in its own shape."""
        if not self.packed:
            return latents
        return latents[..., : math.prod(self.video_shape[1:])].reshape(len(latents), *self.video_shape[1:])

    def with_video(self, latents: Tensor, video: Tensor) -> Tensor:
        """The same latents with another video; what else is in them stays bit by bit."""
        if not self.packed:
            return video
        rest = latents[..., math.prod(self.video_shape[1:]) :]
        return torch.cat((video.reshape(len(latents), 1, -1), rest), dim=-1)
