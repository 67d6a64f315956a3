"""RAFT, the paper's flow model, from torchvision."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import optical_flow as tv_flow

from ..media.files import load_state, read_safetensors
from .base import FlowModel, register_flow_model


class RaftFlow(FlowModel):
    """RAFT (Teed and Deng, ECCV 2020), the paper's flow, from torchvision. In float32 only: so are its positions."""

    min_size, multiple = 128, 8

    def __init__(
        self, name: str = "raft_large", num_flow_updates: int | None = None, network: tv_flow.RAFT | None = None
    ):
        """
        Args:
            name: "raft_large" (5.3 M parameters) or "raft_small" (1.0 M).
            num_flow_updates: refinements, 12 unless given. Fewer are faster and blurrier; only with one does the
                gradient equal the derivative, as RAFT detaches its estimate between refinements.
            network: torchvision's, with its weights, where somebody else has it already.
        """
        super().__init__()
        if num_flow_updates is not None and num_flow_updates < 1:
            raise ValueError(f"num_flow_updates is {num_flow_updates}, expected at least 1.")
        self.name, self.cost = name, {"raft_large": 3.0, "raft_small": 0.7}[name]
        self.num_flow_updates = num_flow_updates or 12
        self.network = getattr(tv_flow, name)(weights=None) if network is None else network
        self.freeze()

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        if a.dtype != torch.float32:
            raise ValueError(f"flow model {self.name}: weights are {a.dtype}, expected torch.float32. Do not cast it.")
        try:
            return self.network(2 * a - 1, 2 * b - 1, num_flow_updates=self.num_flow_updates)[-1]
        finally:
            # torchvision leaves the correlation volume, and with it the whole graph, on the module.
            self.network.corr_block.corr_pyramid = []


def load_raft(
    name: str, path: Path | None = None, download: bool = False, num_flow_updates: int | None = None
) -> RaftFlow:
    """RAFT with the weights of a .safetensors (torchvision's names), or torchvision's own; see `load_flow_model`."""
    model = RaftFlow(name, num_flow_updates)
    if path is None:
        path, state = _raft_weights(name, download)
    else:
        state = read_safetensors(path, f"weights of flow model {name}")[0]
    load_state(model.network, state, path, f"weights of flow model {name}")
    return model


for _name in ("raft_large", "raft_small"):
    register_flow_model(_name, RaftFlow.min_size)(partial(load_raft, _name))


def _raft_weights(name: str, download: bool) -> tuple[Path, dict[str, Tensor]]:
    """Torchvision's default weights from its own folder; a download is checked against the hash in the file name."""
    weights = {"raft_small": tv_flow.Raft_Small_Weights, "raft_large": tv_flow.Raft_Large_Weights}[name].DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    if not file.is_file() and not download:
        raise FileNotFoundError(
            f"The weights of the flow model {name} are not on this machine (looked for {file}). Allow the download, "
            f"put torchvision's file there, give the path of a .safetensors file, or choose lucas_kanade."
        )
    try:
        return file, weights.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except OSError as error:
        raise FileNotFoundError(
            f"The weights of the flow model {name} could not be downloaded from {weights.url} ({error}). "
            f"Fetch the file elsewhere and put it at {file}."
        ) from error
    except Exception as error:
        raise ValueError(f"{file} is damaged or not torchvision's ({error}). Delete it and download again.") from error
