"""Flow models, whether this pack or ComfyUI has loaded them."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from torchvision.models.optical_flow import RAFT

from ...motionprompt_core.flow.raft import RaftFlow
from . import flow_networks, folders  # noqa: F401 (registers its flow models)
from .models import ManagedModel

# ComfyUI's folder; older ones have none.
FOLDER = "optical_flow"


class LoadedElsewhere(ManagedModel):
    """A flow model around a network that another ModelPatcher has: it stays that one's to load and to offload."""

    def __init__(self, module: RaftFlow, patcher: object):
        self.module, self.patcher = module, patcher


def managed_flow(given: object) -> ManagedModel:
    """A flow model from this pack, or ComfyUI's OPTICAL_FLOW, as this pack has it.

    Raises:
        ValueError: OPTICAL_FLOW of another kind than torchvision's RAFT.
    """
    if isinstance(given, ManagedModel):
        return given
    network = getattr(given, "model", None)
    if not isinstance(network, RAFT):
        raise ValueError(
            f"MotionPrompt: the optical flow model is a {type(network).__name__}, but of ComfyUI's only torchvision's "
            "RAFT is known. Use Load Optical Flow Model (MotionPrompt), or a raft_large file."
        )
    large = sum(parameter.numel() for parameter in network.parameters()) > 3e6
    return LoadedElsewhere(RaftFlow("raft_large" if large else "raft_small", network=network), given)


def flow_files() -> list[str]:
    """Names of the files that may hold a flow model's weights, in this pack's folder and in ComfyUI's."""
    own = folder_paths.get_filename_list(FOLDER) if FOLDER in folder_paths.folder_names_and_paths else []
    return [*folders.weight_files(), *own]


def optical_flow_file(name: str) -> Path | None:
    """A .safetensors in models/optical_flow that begins with a flow model's name."""
    if FOLDER not in folder_paths.folder_names_and_paths:
        return None
    names = [n for n in folder_paths.get_filename_list(FOLDER) if n.endswith(".safetensors")]
    found = next((n for n in names if Path(n).name.startswith(name)), None)
    path = None if found is None else folder_paths.get_full_path(FOLDER, found)
    return None if path is None else Path(path)
