"""Our own networks under ComfyUI's model management: loaded, moved and freed with everything else."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import comfy.model_management
import comfy.model_patcher
from torch import nn

from .comfy_types import ModulePatcher, Patcher
from .core_functions import newer


class ManagedModel:
    """A network and the ModelPatcher through which ComfyUI loads and offloads it.

    Attributes:
        module: the network. patcher: ComfyUI's handle on it.
    """

    def __init__(self, module: Any):
        self.module = module.eval().requires_grad_(False)
        # With dynamic VRAM a single ordinary patcher has ComfyUI free memory for all models by their estimated sizes.
        kind = newer(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        self.patcher = kind(
            self.module,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )

    def load(self) -> Any:
        """Bring the network to its device for use outside of sampling; returns it."""
        comfy.model_management.load_model_gpu(self.patcher)
        return self.module


def free_memory(patcher: Patcher) -> float:
    """Bytes that are free on a ModelPatcher's device, or held by weights that ComfyUI would take away for others."""
    own = getattr(patcher, "get_free_memory", None)
    device = patcher.load_device
    return comfy.model_management.get_free_memory(device) if own is None else own(device)


def modules_of(patchers: Iterable[ModulePatcher]) -> list[nn.Module]:
    """The networks behind some ModelPatchers."""
    return [patcher.model for patcher in patchers if isinstance(getattr(patcher, "model", None), nn.Module)]


def every_module(roots: Iterable[nn.Module]) -> list[nn.Module]:
    """All modules of some networks, each once.

    The garbage collector waits: a ModelPatcher that it ends takes AnimateDiff-Evolved's motion modules out of the very
    network that is being gone through.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return list({id(module): module for root in roots for module in root.modules()}.values())
    finally:
        if collecting:
            gc.enable()


def wrapped(model: Patcher, key: str, wrappers: Mapping[str, Callable[..., object]]) -> Patcher:
    """A clone of a MODEL with these wrappers, by the function of ComfyUI's that they stand around; those that it had
    under the same key are replaced."""
    model = model.clone()
    for kind, wrapper in wrappers.items():
        model.remove_wrappers_with_key(kind, key)
        model.add_wrapper_with_key(kind, key, wrapper)
    return model
