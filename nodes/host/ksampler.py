"""ComfyUI's own KSampler, so that noise, preview, progress bar and cancelling are exactly its."""

from __future__ import annotations

import importlib
from typing import Any

import comfy.samplers

# By name: this pack has a package called `nodes` as well, which is only ever imported relatively.
_comfy_nodes = importlib.import_module("nodes")

SAMPLERS = comfy.samplers.KSampler.SAMPLERS
SCHEDULERS = comfy.samplers.KSampler.SCHEDULERS


def sample(
    model: Any,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Any,
    negative: Any,
    latent_image: dict[str, Any],
    denoise: float,
    last_step: int | None = None,
) -> dict[str, Any]:
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
