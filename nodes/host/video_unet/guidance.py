"""Rescaled classifier-free guidance for models whose frames are the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..comfy_types import ModelSampling, Options, Patcher


def rescaled_cfg(model: Patcher, multiplier: float) -> Patcher:
    """A clone of a MODEL whose guidance keeps the contrast of the prompt's own prediction (Lin et al., arXiv
    2305.08891, section 3.4), as DynamiCrafter samples.

    Args:
        multiplier: how much of the rescaled prediction is mixed in, 0 to 1.
    """
    model = model.clone()

    def cfg(args: Options) -> Tensor:
        x, sampling = args["input"], args["model"].model_sampling
        cond, uncond = args["cond_denoised"], args["uncond_denoised"]
        x0 = rescale(sampling, args["sigma"], x, cond, uncond, args["cond_scale"], multiplier)
        return x - x0

    model.set_model_sampler_cfg_function(cfg)
    return model


def rescale(
    sampling: ModelSampling, sigma: Tensor, x: Tensor, cond: Tensor, uncond: Tensor, scale: float, multiplier: float
) -> Tensor:
    """x0 (F, C, h, w) of guidance in what the network predicts, its standard deviation brought towards that of the
    prompt's own. The deviation is the whole clip's, not each frame's.

    Args:
        sampling: ComfyUI's model_sampling, by which x0 is an affine function of what the network predicts.
        sigma: (F,). x: the noisy latents. cond, uncond: x0 with the prompt and with the negative one.
    """
    offset = sampling.calculate_denoised(sigma, torch.zeros_like(x), x)
    slope = sampling.calculate_denoised(sigma, torch.ones_like(x), torch.zeros_like(x))
    predicted, negative = (cond - offset) / slope, (uncond - offset) / slope
    guided = negative + scale * (predicted - negative)
    rescaled = guided * (predicted.std() / guided.std())
    return offset + slope * torch.lerp(guided, rescaled, multiplier)
