"""The gradient form of guidance of the estimate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from motionprompt_core.flow import load_flow_model
from research.evaluation.descend import _gradient, colour_change, descend, third_difference


@pytest.fixture(scope="module")
def flow():
    return load_flow_model("lucas_kanade")


def moving(frames: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 3, 8, 12, generator=generator)
    ground = 0.5 + 0.15 * torch.nn.functional.interpolate(noise, size=(64, 96), mode="bicubic")[0]
    return torch.stack([ground[:, :, 2 * t : 2 * t + 64] for t in range(frames)])


def test_moves_lessen_flicker_and_strength_0_gives_the_very_same_tensor(flow) -> None:
    clean = moving()
    gain = 1 + 0.06 * torch.randn(6, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    video = clean * gain
    light = [float(v.mean((1, 2, 3)).std()) for v in (video, descend(video, flow))]
    assert light[1] < 0.7 * light[0]
    assert descend(video, flow, strength=0) is video


def test_moves_work_in_inference_mode_and_leave_no_graph(flow) -> None:
    with torch.inference_mode():
        found = descend(moving(), flow, moves=1)
    assert not found.requires_grad and found.isfinite().all()
    assert not descend(moving().requires_grad_(), flow, moves=1).requires_grad


def test_the_gradient_is_the_derivative_whatever_the_pieces(flow) -> None:
    """Along a random direction, of a loss whose every part is smooth there: in double precision by differences."""
    video = moving(5).double() + 0.02 * torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(2))

    def only(pictures: Tensor, motion: Tensor) -> Tensor:
        return motion.square().mean() + pictures.square().mean()

    whole = _gradient(video.clone(), flow, (only,), 8, lambda: None)
    assert torch.allclose(_gradient(video.clone(), flow, (only,), 1, lambda: None), whole, atol=1e-10)
    base = _gradient(video.clone(), flow, (), 8, lambda: None)
    direction = torch.randn(video.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def loss(pictures: Tensor) -> float:
        with torch.no_grad():
            return float(only(pictures, flow(pictures[:-1], pictures[1:])))

    slope = (loss(video + 1e-5 * direction) - loss(video - 1e-5 * direction)) / 2e-5
    assert float(((whole - base) * direction).sum()) == pytest.approx(slope, rel=1e-3)


def test_even_acceleration_costs_nothing_and_a_jolt_does() -> None:
    time = torch.arange(6.0).view(-1, 1, 1, 1)
    even = torch.cat((1 + 0.5 * time, -0.25 * time), 1).expand(-1, -1, 32, 32)
    jolted = even.clone()
    jolted[3] += 2
    assert third_difference(even) < 2e-3
    assert third_difference(jolted) > 1


def test_colour_is_compared_where_it_is_seen_alone() -> None:
    pictures = torch.zeros(2, 3, 8, 8)
    pictures[1] = 1
    seen = torch.zeros(1, 1, 8, 8)
    assert colour_change(pictures, torch.zeros(1, 2, 8, 8), seen) == 0
    assert colour_change(pictures, torch.zeros(1, 2, 8, 8), seen + 1) == pytest.approx(1, abs=2e-3)
