"""SEA-RAFT beside the published code's figures, from a file of the published names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

pytestmark = pytest.mark.inprocess


def random_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Random weights, the same for every implementation with these names."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name, value in sorted(network.state_dict().items()):
        if value.ndim > 1:
            gain = 0.1 if "flow_head.2" in name else 0.6
            state[name] = gain * torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5
        elif value.ndim == 1:
            scale = name.endswith("running_var") or (name.endswith("weight") and ".final" not in name)
            state[name] = 0.1 * torch.randn(value.shape, generator=generator) + float(scale)
        else:
            state[name] = value
    return state


def frames(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(1, 3, height, width, generator=generator), torch.rand(1, 3, height, width, generator=generator)


# Of the published code with the same weights: flow and mixture at the middle row, a third of the width; their means.
PUBLISHED = {
    (128, 160): [
        [-0.67579, 5.26035, 0.0621, 0.0486, -0.14347, -0.02182],
        [-0.58931, 4.83585, 0.05774, 0.04491, -0.13127, -0.02006],
    ],
    (136, 200): [
        [-0.67438, 5.26149, 0.06223, 0.04851, -0.14335, -0.02182],
        [-0.59747, 4.88531, 0.05829, 0.04532, -0.13267, -0.02024],
    ],
}


@pytest.fixture(scope="module")
def network(comfy) -> torch.nn.Module:
    module = comfy.module("nodes.host.flow_networks.sea_raft")
    network = module.Network(module.BLOCKS["sea_raft_s"]).eval()
    network.load_state_dict(random_state(network))
    return network


@pytest.fixture(scope="module")
def file(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As published: a block's last norm under the other of its two names."""
    path = tmp_path_factory.mktemp("flow") / "sea_raft_s.safetensors"
    state = {name.replace(".downsample.1.", ".bn3."): value for name, value in network.state_dict().items()}
    save_file(state, path)
    return path


@pytest.mark.parametrize("size", PUBLISHED)
@torch.no_grad()
def test_the_network_is_the_published_one(network: torch.nn.Module, size: tuple[int, int]) -> None:
    a, b = frames(*size)
    found = torch.cat(network(2 * a - 1, 2 * b - 1), 1)[0]
    point, mean = found[:, size[0] // 2, size[1] // 3], found.mean((1, 2))
    torch.testing.assert_close(torch.stack((point, mean)), torch.tensor(PUBLISHED[size]), rtol=0, atol=2e-5)


@torch.no_grad()
def test_it_is_had_by_name_from_a_file_alone(comfy, network: torch.nn.Module, file: Path) -> None:
    flows = comfy.module("motionprompt_core.flow")
    available_flow_models, load_flow_model = flows.available_flow_models, flows.load_flow_model
    assert "sea_raft_s" not in available_flow_models() and "sea_raft_s" in available_flow_models([file.name])
    model = load_flow_model("sea_raft_s", file)
    a, b = frames(130, 128)
    flow, sure = model.with_confidence(a, b)
    assert flow.shape == (1, 2, 130, 128) and torch.equal(flow, model(a, b))
    assert sure is not None and sure.shape == (1, 1, 130, 128) and 0 < float(sure.min()) <= float(sure.max()) <= 1
    assert load_flow_model("lucas_kanade").with_confidence(a, b)[1] is None
    with pytest.raises(FileNotFoundError, match="sea_raft_m are not on this machine.*sea_raft_m.safetensors"):
        load_flow_model("sea_raft_m")
    with pytest.raises(ValueError, match="weights of flow model sea_raft_m"):
        load_flow_model("sea_raft_m", file)
