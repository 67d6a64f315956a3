"""The noise schedule of VideoCrafter2 and DynamiCrafter, whose clean latents are scaled by s(t) before noise is added:

    x_t = sqrt(a) s x0 + sqrt(1 - a) eps

In ComfyUI's terms, where x = x0 + sigma eps, that is sigma = sqrt((1 - a) / a) / s, and EDM's sigma_data = 1 / s, which
so depends on the noise. Without it a video loses about a third of its contrast. All that comes out (x0, previews, what
the guidance decodes) is the true latent.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_sampling import ModelSamplingDiscrete, reshape_sigma
from torch import Tensor

SCALED_STEPS = 400  # s falls linearly from 1 over these timesteps, then stays


def latent_scale(lowest: float, timesteps: int = 1000) -> Tensor:
    """s(t), (timesteps,)."""
    scale = torch.full((timesteps,), lowest)
    scale[:SCALED_STEPS] = torch.linspace(1.0, lowest, SCALED_STEPS)
    return scale


class ScaledSampling(ModelSamplingDiscrete):
    """`model_sampling` of the video families: eps-prediction with a sigma_data for each noise level.

    The configuration's `sampling_settings` are ComfyUI's and `latent_scale`, the lowest s (1 for none).

    Attributes:
        sigma_data_table: 1 / s(t), (1000,). sigma_data: 1, what ComfyUI's other classes have; not used here.
    """

    def __init__(self, model_config: Any = None, zsnr: bool | None = None):
        super().__init__(model_config, zsnr)
        scale = latent_scale(model_config.sampling_settings.get("latent_scale", 1.0), self.num_timesteps)
        self.register_buffer("sigma_data_table", 1 / scale)
        self.set_sigmas(self.sigmas / scale)

    def sigma_data_at(self, sigma: Tensor) -> Tensor:
        """1 / s at any noise level, with s interpolated over log sigma; the shape of `sigma`."""
        known = self.log_sigmas.to(sigma.device)
        log_sigma = sigma.float().clamp(min=1e-10).log().clamp(known[0], known[-1])
        high = torch.searchsorted(known, log_sigma.contiguous()).clamp(1, len(known) - 1)
        weight = (log_sigma - known[high - 1]) / (known[high] - known[high - 1])
        scale = 1 / self.sigma_data_table.to(sigma.device)
        return (1 / torch.lerp(scale[high - 1], scale[high], weight)).to(sigma.dtype)

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """What the network sees of x: x_t, of variance near 1."""
        data = reshape_sigma(self.sigma_data_at(sigma), noise.ndim)
        return noise / (reshape_sigma(sigma, noise.ndim) ** 2 + data**2) ** 0.5

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """x0 from x and the predicted eps."""
        return model_input - model_output * reshape_sigma(sigma, model_output.ndim)

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """The x to start from; at full denoising the network's first input is then the noise as it was drawn."""
        data = self.sigma_data_at(sigma)
        level = (sigma**2 + data**2) ** 0.5 if max_denoise else sigma
        return noise * reshape_sigma(level, noise.ndim) + latent_image

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        return latent


class ScaledVSampling(ScaledSampling):
    """The same for v-prediction, v = sqrt(a) eps - sqrt(1 - a) s x0."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        data = reshape_sigma(self.sigma_data_at(sigma), model_output.ndim)
        sigma = reshape_sigma(sigma, model_output.ndim)
        variance = sigma**2 + data**2
        return model_input * data**2 / variance - model_output * sigma * data / variance**0.5
