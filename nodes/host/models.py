"""Our own networks under ComfyUI's model management: loaded, moved and freed with everything else."""

from __future__ import annotations

from typing import Any

import comfy.model_management
from comfy.model_patcher import ModelPatcher
from torch import nn


class ManagedModel:
    """A network and the ModelPatcher through which ComfyUI loads and offloads it.

    Attributes:
        module: the network. patcher: ComfyUI's handle on it.
    """

    def __init__(self, module: Any):
        self.module = module.eval().requires_grad_(False)
        self.patcher = ModelPatcher(
            self.module,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )

    def load(self) -> Any:
        """Bring the network to its device for use outside of sampling; returns it."""
        comfy.model_management.load_model_gpu(self.patcher)
        return self.module


def modules_of(patchers: list[Any]) -> list[nn.Module]:
    """The networks behind some ModelPatchers."""
    return [patcher.model for patcher in patchers if isinstance(getattr(patcher, "model", None), nn.Module)]
