"""ComfyUI's own KSampler, so that noise, preview, progress bar and cancelling are exactly its."""

from __future__ import annotations

import importlib

import comfy.samplers

from .comfy_types import Conditioning, Latent, Patcher

# By name: this pack has a package called `nodes` as well, which is only ever imported relatively.
_comfy_nodes = importlib.import_module("nodes")

SAMPLERS = comfy.samplers.KSampler.SAMPLERS
SCHEDULERS = comfy.samplers.KSampler.SCHEDULERS


def sample(
    model: Patcher,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    denoise: float,
    last_step: int | None = None,
) -> Latent:
    """What the KSampler node does; returns a LATENT. `last_step`: how many steps to make, None for all."""
    return _comfy_nodes.common_ksampler(
        model,
        seed,
        steps,
        cfg,
        sampler_name,
        scheduler,
        positive,
        negative,
        latent_image,
        denoise=denoise,
        last_step=last_step,
    )[0]
