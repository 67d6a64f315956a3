"""Video VAEs that cut time into chunks which begin anew: MiniMax H3's, 17 frames of 5 latents."""

from __future__ import annotations

from torch import Tensor

from .comfy_types import BaseModel, Vae
from .decode import SliceDecoder, fixed_noise


class ChunkDecoder(SliceDecoder):
    """No slice of the latents stands for frames, so that the whole video is decoded, in the chunks of the VAE's own."""

    pieces = ((None, 2), (None, 1))

    def num_frames(self, num_latents: int) -> int:
        return self.decode.vae.upscale_ratio[0](num_latents)

    def slices(self, num_latents: int, frames: list[int]) -> list[tuple[int, int]]:
        return [(0, num_latents - 1)]

    def __call__(self, x0: Tensor, frames: list[int]) -> Tensor:
        with fixed_noise(self.decode.vae.device):
            pictures = self.decode(self.as_model(x0))[0].movedim(1, 0)
        self.check_number(len(x0), len(pictures))
        return pictures[frames]

    def pictures(self, x0: Tensor, most: int | None = None) -> Tensor:
        return self(x0, list(range(self.num_frames(len(x0)))))

    def encode(self, frames: Tensor) -> Tensor:
        """Latents (T, C, h, w) of a whole video (F, 3, H, W), nominally in [0, 1]."""
        with fixed_noise(self.decode.vae.device):
            return self.decode.encode(self.as_model(frames))[0].movedim(1, 0)

    def latents(self, frames: Tensor, most: int | None = None) -> Tensor:
        return self.encode(frames)


def video_decoder(vae: Vae, model: BaseModel, appended: int, after: int, leading: int) -> SliceDecoder:
    """The decoder for a video VAE's way to cut time."""
    frames = vae.upscale_ratio[0]
    even = frames(7) - 1 == 6 * (frames(2) - 1)
    return (SliceDecoder if even else ChunkDecoder)(vae, model, appended, after, leading)
