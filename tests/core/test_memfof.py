"""MEMFOF beside the published code's figures, from a file of the published names; three frames at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from motionprompt_core.estimate.paths import Paths, Reel
from motionprompt_core.estimate.steady import margin, steady_frames
from motionprompt_core.flow import FlowModel, available_flow_models, load_flow_model
from motionprompt_core.flow.memfof import MemfofFlow, Network
from tests.core.test_sea_raft import random_state

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
def model(tmp_path_factory: pytest.TempPathFactory) -> MemfofFlow:
    path: Path = tmp_path_factory.mktemp("flow") / "memfof.safetensors"
    save_file({**random_state(Network()), "update_block.aggregator.gamma": torch.tensor([0.5])}, path)
    assert "memfof" not in available_flow_models() and "memfof" in available_flow_models([path.name])
    loaded = load_flow_model("memfof", path)
    assert isinstance(loaded, MemfofFlow)
    return loaded


@pytest.mark.exhaustive
@torch.no_grad()
def test_the_network_is_the_published_one(model: MemfofFlow) -> None:
    frames = torch.rand(1, 3, 3, 256, 272, generator=torch.Generator().manual_seed(1))
    found = torch.cat(model.network(*(2 * frames - 1).unbind(1)), 2)[0].flatten(0, 1)
    point, mean = found[:, 128, 90], found.mean((1, 2))
    torch.testing.assert_close(torch.stack((point, mean)), torch.tensor(PUBLISHED), rtol=0, atol=5e-5)
    flow, sure = model.to_both(*(x[..., :256, :262] for x in frames.unbind(1)))
    assert flow.shape == (1, 2, 2, 256, 262)
    assert sure is not None and sure.shape == (1, 2, 1, 256, 262) and 0 < float(sure.min()) <= float(sure.max()) <= 1


def test_it_has_the_published_files_tensors() -> None:
    with torch.device("meta"):
        state = Network().state_dict()
    floating = [tensor for tensor in state.values() if tensor.is_floating_point()]
    assert len(state) == 397 and sum(tensor.numel() for tensor in floating) == 75_782_921


def test_without_weights_it_says_where_they_are_had() -> None:
    with pytest.raises(FileNotFoundError, match="memfof are not on this machine.*memfof.safetensors"):
        load_flow_model("memfof")


class Three(FlowModel):
    """Flows that tell which frames they were found in; a frame is its number."""

    name, min_size, multiple, cost, three = "three", 1, 1, 0.0, True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, float, float]] = []

    def estimate_both(self, before: Tensor, here: Tensor, after: Tensor) -> Tensor:
        numbers = [x[:, 0, 0, 0] for x in (before, here, after)]
        self.seen += zip(*(column.tolist() for column in numbers), strict=True)
        told = torch.stack((numbers[0] + 100 * numbers[1], numbers[2] + 100 * numbers[1]), 1)
        return (1e-4 * told)[:, :, None, None, None].expand(-1, -1, 2, *here.shape[-2:])


def counted(frames: int) -> Tensor:
    return torch.arange(float(frames)).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)


def test_each_three_frames_are_looked_at_once_for_both_flows() -> None:
    flow = Three()
    paths = Paths(counted(30), flow, 3)
    for frame in range(30):
        paths.look(frame, frame + 1)
        found = paths.from_frame(frame)[0][:, 0, 0, 0]
        told = [1e-4 * (other + 100 * frame) for other in paths.neighbours(frame)]
        torch.testing.assert_close(found, torch.tensor(told))
    assert len(flow.seen) == len(set(flow.seen))
    assert all(2 * here == before + after or here in (before, after) for before, here, after in flow.seen)
    pairs = sum(len(paths.neighbours(frame)) for frame in range(30))
    assert len(flow.seen) < 0.65 * pairs


def test_a_reel_is_steadied_as_the_whole_video_is() -> None:
    frames = torch.rand(14, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    flow = Three()
    whole = torch.stack(list(steady_frames(frames, flow)))
    reel = Reel(iter(frames), len(frames), 5 + margin(flow) + 1)
    assert torch.equal(torch.stack(list(steady_frames(reel, flow))), whole)
