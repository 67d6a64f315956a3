"""Latents to pictures without clamping, so that the gradient survives where a picture is too bright or too dark."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class FrameDecoder:
    """Decodes single frames with a ComfyUI VAE (or tiny autoencoder), differentiably.

    Args:
        vae: ComfyUI's VAE. model: the BaseModel whose latents are decoded.

    Raises:
        ValueError: the VAE does not fit the model's latents.
    """

    def __init__(self, vae: Any, model: Any):
        check_vae(vae, model.latent_format)
        self.vae = vae
        self.model = model
        # `process_output` maps the decoder's range to [0, 1] and clamps; both decoders and pixel models do it by a
        # line.
        low, high = (float(vae.process_output(torch.tensor([value]))[0]) for value in (0.25, 0.5))
        self.slope = (high - low) / 0.25
        self.offset = low - 0.25 * self.slope

    def __call__(self, latents: Tensor) -> Tensor:
        """Frames (N, 3, H, W), nominally in [0, 1], of latents (N, C, h, w) as the model sees them."""
        raw = self.model.process_latent_out(latents).to(device=self.vae.device, dtype=self.vae.vae_dtype)
        frames = self.vae.first_stage_model.decode(raw).float()
        return (frames * self.slope + self.offset).to(latents.device)


def check_vae(vae: Any, latent_format: Any) -> None:
    """Raise ValueError unless the VAE decodes single frames of these latents."""
    if getattr(vae, "first_stage_model", None) is None:
        raise ValueError("The VAE is missing or invalid. Load a VAE that belongs to the model.")
    if vae.latent_dim != 2:
        raise ValueError(
            f"The VAE is for {vae.latent_dim}-dimensional latents, but frames are decoded one by one. "
            "Use the image VAE (or TAESD) of the model that the video model is built on."
        )
    if vae.latent_channels != latent_format.latent_channels:
        raise ValueError(
            f"The VAE has {vae.latent_channels} latent channels, but the model's latents have "
            f"{latent_format.latent_channels}. Use the VAE that belongs to the model."
        )


def frame_size(vae: Any, latent: Tensor) -> tuple[int, int]:
    """Height and width in pixels of a decoded frame of latents (..., h, w)."""
    factor = vae.spacial_compression_decode()
    return latent.shape[-2] * factor, latent.shape[-1] * factor
