"""A small autoencoder: 128 px frames <-> 16 x 16 latents of 4 channels, as Stable Diffusion's VAE but for sprites."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LATENT_CHANNELS, DOWNSCALE = 4, 8


class ResBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class Encoder(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> (B, 4, H/8, W/8): the picture at an eighth of its size, and one learnt linear channel.

    A free encoder packs 8 x 8 pixels more faithfully, but into latents that a small diffusion model cannot learn within
    hours; a small picture it can.
    """

    def __init__(self) -> None:
        super().__init__()
        self.detail = nn.Conv2d(3, LATENT_CHANNELS - 3, 2 * DOWNSCALE, DOWNSCALE, padding=DOWNSCALE // 2)

    def forward(self, frames: Tensor) -> Tensor:
        return torch.cat((F.avg_pool2d(frames, DOWNSCALE), self.detail(frames)), dim=1)


class Decoder(nn.Sequential):
    """(B, 4, h, w) -> (B, 3, 8h, 8w) in about [-1, 1], not clamped: a clamp would cut the gradient of the guidance."""

    def __init__(self, width: int = 96, fine_width: int = 48):
        super().__init__(
            nn.Conv2d(LATENT_CHANNELS, width, 3, padding=1),
            ResBlock(width),
            ResBlock(width),
            nn.Conv2d(width, 4 * fine_width, 1),
            nn.PixelShuffle(2),
            ResBlock(fine_width),
            ResBlock(fine_width),
            nn.Conv2d(fine_width, 3 * 4**2, 3, padding=1),
            nn.PixelShuffle(4),
        )


class Autoencoder(nn.Module):
    """Deterministic autoencoder; `scale` brings the latents to unit standard deviation for the diffusion model."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.register_buffer("scale", torch.ones(()))

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (B, 3, H, W) in [-1, 1] -> raw latents (B, 4, H/8, W/8); H and W are multiples of 8."""
        return self.encoder(frames)

    def decode(self, latents: Tensor) -> Tensor:
        """Raw latents (B, 4, h, w) -> frames (B, 3, 8h, 8w) in about [-1, 1]."""
        return self.decoder(latents)
