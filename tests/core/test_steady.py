"""The closed form: what shakes or flickers gets steadier, and what moves by itself comes out as it was."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from motionprompt_core.estimate.paths import Paths
from motionprompt_core.estimate.steady import fit_weights, steady
from motionprompt_core.flow import load_flow_model
from motionprompt_tools import world
from research.demo import truth

FRAMES = 12
TIME = torch.arange(FRAMES, dtype=torch.float32)
STRAIGHT = torch.stack((45 + 2.5 * TIME, torch.full_like(TIME, 64.0)), dim=1)


@pytest.fixture(scope="module")
def flow():
    return load_flow_model("lucas_kanade")


@pytest.fixture
def sprite(monkeypatch):
    """A disc that is at the given places (FRAMES, 2; px) of a 128 px video."""
    clip = world.Clip("circle", "red", "sand", "right", 26.0, (45.0, 64.0), 2.5, seed=3)

    def render(path: Tensor, **faults: float) -> Tensor:
        monkeypatch.setattr(world, "trajectory", lambda *_: path)
        return world.render(world.replace(clip, **faults), FRAMES)[0]

    return render


def places(video: Tensor) -> Tensor:
    return truth.centroids(truth.sprite_masks(video)[0])


def distance(a: Tensor, b: Tensor) -> float:
    """Root mean square distance of two paths, px."""
    return float((a - b).square().sum(1).mean().sqrt())


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(float((a.clamp(0, 1) - b.clamp(0, 1)).square().mean()) + 1e-12)


def texture(height: int, width: int, seed: int) -> Tensor:
    """A picture (3, height, width) with detail at two scales."""
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(1, 3, height // k, width // k, generator=generator) for k in (16, 5)]
    parts = [torch.nn.functional.interpolate(n, size=(height, width), mode="bicubic") for n in noise]
    return (0.5 + 0.12 * parts[0] + 0.05 * parts[1])[0].clamp(0, 1)


def again(video: torch.Tensor, flow, times: int) -> torch.Tensor:
    """Steadied so many times, as the corrections of several steps add up."""
    for _ in range(times):
        video = steady(video, flow)
    return video


def test_strength_0_gives_the_very_same_tensor_back(flow) -> None:
    video = torch.rand(5, 3, 64, 64)
    assert steady(video, flow, strength=0) is video


def test_strength_is_a_share_of_the_way(flow, sprite) -> None:
    video = sprite(STRAIGHT, flicker=0.06)
    whole, half = steady(video, flow), steady(video, flow, strength=0.5)
    assert (whole - video).abs().max() > 0.02
    assert torch.allclose(half - video, (whole - video) / 2, atol=1e-6)


def test_a_still_video_stays_as_it_is(flow) -> None:
    video = texture(96, 128, 0).expand(6, -1, -1, -1)
    assert torch.allclose(steady(video, flow), video, atol=1e-4)


@pytest.mark.parametrize(("amplitude", "period"), [(8, 16), (8, 8)])
def test_curved_motion_is_kept_after_five_rounds(flow, sprite, amplitude: float, period: float) -> None:
    wave = amplitude * torch.sin(2 * math.pi * TIME / period)
    video = sprite(STRAIGHT + torch.stack((0 * TIME, wave), dim=1))
    before, after = places(video), places(again(video, flow, 5))
    assert distance(after, before) < 0.05 * float(wave.square().mean().sqrt())


def test_a_bounce_is_kept_after_five_rounds(flow, sprite) -> None:
    height = 30 * torch.sin(math.pi * (TIME + 0.5) / 8).abs()
    video = sprite(torch.stack((STRAIGHT[:, 0], 80 - height), dim=1))
    before, after = places(video), places(again(video, flow, 5))
    assert distance(after, before) < 0.05 * float(height.std())


def test_jolts_are_taken_back(flow, sprite) -> None:
    """A disc that jumps aside for a frame: neither what was before nor what comes after leads there."""
    jolts = torch.zeros(FRAMES, 2)
    jolts[3, 1], jolts[7, 0], jolts[8, 1] = 3.0, -3.0, -2.5
    clean, shaken = places(sprite(STRAIGHT)), sprite(STRAIGHT + jolts)
    assert distance(places(again(shaken, flow, 2)), clean) < 0.6 * distance(places(shaken), clean)


def test_white_jitter_is_lessened(flow, monkeypatch) -> None:
    """By two fifths. The rest is slow enough to be a path of its own."""
    clip = world.Clip("circle", "red", "sand", "right", 26.0, (45.0, 64.0), 2.5, seed=3)
    time, generator = torch.arange(16.0), torch.Generator().manual_seed(0)
    path = torch.stack((30 + 2.5 * time, torch.full_like(time, 64.0)), dim=1)
    path += torch.randn(16, 2, generator=generator) * 2**0.5
    monkeypatch.setattr(world, "trajectory", lambda *_: path)
    shaken = world.render(clip, 16)[0]
    assert truth.read(steady(shaken, flow)).jitter < 0.65 * truth.read(shaken).jitter


def test_flow_that_lost_its_content_is_not_believed() -> None:
    """A way there and back that closes by chance: the way by the frame between leads elsewhere."""

    class Astray(torch.nn.Module):
        min_size, grid = 1, None

    frames = torch.zeros(7, 3, 32, 32)
    paths = Paths(frames, Astray(), 3)  # type: ignore[arg-type]
    paths._known = {(i, j): torch.full((2, 32, 32), 2.0 * (j - i)) for i in range(7) for j in range(7) if i != j}
    assert paths.from_frame(3)[1][:, :, 12:20, 12:20].min() == 1
    paths._known[3, 5], paths._known[5, 3] = torch.full((2, 32, 32), -3.0), torch.full((2, 32, 32), 3.0)
    seen = dict(zip(paths.neighbours(3), paths.from_frame(3)[1][:, 0, 16, 16].tolist(), strict=True))
    assert seen == {0: 1, 1: 1, 2: 1, 4: 0, 5: 0, 6: 1}


def test_flicker_is_halved_and_detail_kept(flow, sprite) -> None:
    clean, faulty = sprite(STRAIGHT), sprite(STRAIGHT, flicker=0.06)
    steadied = steady(faulty, flow)
    assert truth.read(steadied).exposure < 0.5 * truth.read(faulty).exposure
    assert distance(places(steadied), places(clean)) < 0.1


def test_a_light_that_is_switched_on_stays_a_switch(flow) -> None:
    """The past leads to what is before it, the future to what is after."""
    video = texture(96, 128, 1).expand(10, -1, -1, -1) * torch.where(torch.arange(10) < 5, 0.7, 1.0).view(-1, 1, 1, 1)
    assert psnr(steady(video, flow), video) > 45


def test_a_flash_is_taken_out(flow) -> None:
    video = texture(96, 128, 1).expand(9, -1, -1, -1).clone()
    clean = video.clone()
    video[4] *= 1.15
    error, left = (float((v[4] - clean[4]).abs().mean()) for v in (video, steady(video, flow)))
    assert left < 0.35 * error


def test_nothing_comes_over_a_cut(flow) -> None:
    video = torch.cat([texture(96, 128, 2).expand(5, -1, -1, -1), texture(96, 128, 3).expand(5, -1, -1, -1)])
    assert psnr(steady(video, flow), video) > 45


def test_a_pan_and_a_thing_that_passes_in_front_are_unharmed(flow) -> None:
    ground, thing = texture(128, 256, 4), texture(40, 40, 5)
    pan = torch.stack([ground[:, :, 3 * t : 3 * t + 128] for t in range(10)])
    assert psnr(steady(pan, flow), pan) > 45
    passing = ground[:, :, :128].repeat(10, 1, 1, 1)
    for t in range(10):
        passing[t, :, 44:84, 10 + 4 * t : 50 + 4 * t] = thing
    assert psnr(steady(passing, flow), passing) > 40


def test_small_pieces_give_what_large_ones_do(flow, sprite) -> None:
    video = sprite(STRAIGHT, jitter=2.0, flicker=0.05)
    assert torch.allclose(steady(video, flow, batch=1), steady(video, flow, batch=64), atol=1e-5)


def test_it_runs_in_inference_mode_and_leaves_no_graph(flow) -> None:
    with torch.inference_mode():
        video = torch.rand(4, 3, 64, 64)
        assert not steady(video, flow).requires_grad
    leaf = torch.rand(4, 3, 64, 64, requires_grad=True)
    assert not steady(leaf, flow).requires_grad


def test_a_stop_is_heeded_at_once(flow) -> None:
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steady(torch.rand(8, 3, 64, 64), flow, check=stop)
    assert len(calls) == 2


def test_parabolas_are_met_exactly_and_ends_are_left_alone() -> None:
    tau = torch.tensor([-2.0, -1.0, 1.0, 2.0])
    hat = fit_weights(tau, torch.exp(-tau.square() / 8))
    assert float((hat * (0.7 * tau + 0.3 * tau.square())).sum()) == pytest.approx(0, abs=1e-6)
    assert float((hat * (tau.abs() == 1)).sum()) > 0.3  # what both neighbours are aside of counts
    assert fit_weights(torch.tensor([1.0, 2.0]), torch.ones(2)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("keywords", "message"), [({"strength": 1.5}, "strength is 1.5"), ({"radius": 0}, "radius is 0")]
)
def test_bad_parameters_are_named(flow, keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        steady(torch.rand(4, 3, 64, 64), flow, **keywords)
