"""Flows between near frames: those of three frames at once, each looked at once, and what a model is not sure of."""

from __future__ import annotations

import torch
from torch import Tensor

from motionprompt_core.estimate.paths import Paths, Reel
from motionprompt_core.estimate.steady import margin, steady_frames
from motionprompt_core.flow import FlowModel


class HalfSure(FlowModel):
    """No motion, and no idea of it in the left half."""

    name, min_size, multiple, cost = "half", 1, 1, 0.0

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        found = torch.zeros_like(a)
        found[:, 2, :, a.shape[-1] // 2 :] = 1
        return found


def test_what_a_model_is_not_sure_of_is_not_asked() -> None:
    paths = Paths(torch.rand(5, 3, 32, 32), HalfSure(), 2)
    paths.look(2, 3)
    seen = paths.from_frame(2)[1]
    assert seen[..., :16].max() == 0 and seen[..., 16:].min() == 1


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
