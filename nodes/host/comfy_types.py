"""What is used of ComfyUI's objects, which have no types of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

# By list ("positive", "negative", ...): the entries of a guider, with their keys and values.
Conds = dict[str, list[dict[str, Any]]]
Options = dict[str, Any]


class BaseModel(Protocol):
    """comfy.model_base.BaseModel: a denoiser with its latent format and its noise schedule."""

    diffusion_model: nn.Module
    latent_format: Any

    def memory_required(self, input_shape: list[int], *args: Any, **kwargs: Any) -> float: ...
    def process_latent_out(self, latent: Tensor) -> Tensor: ...


class Patcher(Protocol):
    """comfy.model_patcher.ModelPatcher: a network, and where it is."""

    model: Any
    load_device: torch.device

    def set_additional_models(self, key: str, models: list[Any]) -> None: ...
    def remove_additional_models(self, key: str) -> None: ...


class Guider(Protocol):
    """comfy.samplers.CFGGuider; CFG is absent from the guiders that do without."""

    model_patcher: Any
    model_options: Options
    inner_model: Any
    conds: Conds


class Vae(Protocol):
    """comfy.sd.VAE"""

    first_stage_model: nn.Module
    vae_dtype: torch.dtype
    patcher: Any


class Executor(Protocol):
    """The next wrapper of a sampling function, or the function itself."""

    class_obj: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


def cfg_of(guider: Guider) -> float:
    """The guider's CFG scale; 1, the prompt alone, if it has none."""
    return getattr(guider, "cfg", 1.0)


def set_cfg(guider: Any, cfg: float) -> None:
    """Set the guider's CFG scale, if it has one."""
    if hasattr(guider, "cfg"):
        guider.cfg = cfg


def options_of(options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The transformer options within model options; empty if there are none."""
    return (options or {}).get("transformer_options") or {}
