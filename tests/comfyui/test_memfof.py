"""MEMFOF beside the published code's figures, from a file of the published names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.comfyui.test_sea_raft import random_state

pytestmark = pytest.mark.inprocess
# Of the published code with the same weights: flow and mixture to the frame before, then to the one after, at the
# middle row, a third of the width; their means.
PUBLISHED = [
    [
        8.74377,
        -13.45396,
        0.21618,
        -0.20444,
        0.0333,
        -0.00517,
        29.24126,
        -1.74847,
        -0.05301,
        -0.02794,
        -0.07498,
        0.05706,
    ],
    [8.07932, -12.55387, 0.19842, -0.18889, 0.03041, -0.00351, 26.8472, -1.75819, -0.0481, -0.02529, -0.06842, 0.05103],
]


@pytest.fixture(scope="module")
def module(comfy):
    return comfy.module("nodes.host.flow_networks.memfof")


@pytest.fixture(scope="module")
def model(comfy, module, tmp_path_factory: pytest.TempPathFactory):
    flow = comfy.module("motionprompt_core.flow")
    path: Path = tmp_path_factory.mktemp("flow") / "memfof.safetensors"
    save_file({**random_state(module.Network()), "update_block.aggregator.gamma": torch.tensor([0.5])}, path)
    assert "memfof" not in flow.available_flow_models() and "memfof" in flow.available_flow_models([path.name])
    loaded = flow.load_flow_model("memfof", path)
    assert isinstance(loaded, module.MemfofFlow)
    return loaded


@pytest.mark.exhaustive
@torch.no_grad()
def test_the_network_is_the_published_one(model) -> None:
    frames = torch.rand(1, 3, 3, 256, 272, generator=torch.Generator().manual_seed(1))
    found = torch.cat(model.network(*(2 * frames - 1).unbind(1)), 2)[0].flatten(0, 1)
    point, mean = found[:, 128, 90], found.mean((1, 2))
    torch.testing.assert_close(torch.stack((point, mean)), torch.tensor(PUBLISHED), rtol=0, atol=5e-5)
    flow, sure = model.to_both(*(x[..., :256, :262] for x in frames.unbind(1)))
    assert flow.shape == (1, 2, 2, 256, 262)
    assert sure is not None and sure.shape == (1, 2, 1, 256, 262) and 0 < float(sure.min()) <= float(sure.max()) <= 1


def test_it_has_the_published_files_tensors(module) -> None:
    with torch.device("meta"):
        state = module.Network().state_dict()
    floating = [tensor for tensor in state.values() if tensor.is_floating_point()]
    assert len(state) == 397 and sum(tensor.numel() for tensor in floating) == 75_782_921


def test_without_weights_it_says_where_they_are_had(comfy, module) -> None:
    with pytest.raises(FileNotFoundError, match="memfof are not on this machine.*memfof.safetensors"):
        comfy.module("motionprompt_core.flow").load_flow_model("memfof")
