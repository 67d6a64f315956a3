"""From clean latents to some of the video's frames, whether the autoencoder keeps time or compresses it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor


class VideoDecoder(ABC):
    """An autoencoder that compresses time: a latent stands for several frames, and for none without its neighbours."""

    @abstractmethod
    def num_frames(self, num_latents: int) -> int:
        """Number of frames that latents (F, C, h, w) decode to, F = `num_latents`."""

    @abstractmethod
    def __call__(self, x0: Tensor, frames: list[int]) -> Tensor:
        """The frames of these indices as pictures (N, 3, H, W), of the clean latents (F, C, h, w) of the whole video;
        nominally in [0, 1] but not clamped, differentiable in the latents."""


# An image autoencoder decodes latents (N, C, h, w) to as many pictures, each for itself.
Decoder = Callable[[Tensor], Tensor] | VideoDecoder


def count_frames(decoder: Decoder, x0: Tensor) -> int:
    """Number of frames of the video with clean latents `x0` (F, C, h, w)."""
    return decoder.num_frames(len(x0)) if isinstance(decoder, VideoDecoder) else len(x0)


def decode_frames(decoder: Decoder, x0: Tensor, frames: list[int]) -> Tensor:
    """Pictures (N, 3, H, W) of the frames with these indices, from the clean latents `x0` (F, C, h, w)."""
    return decoder(x0, frames) if isinstance(decoder, VideoDecoder) else decoder(x0[frames])
