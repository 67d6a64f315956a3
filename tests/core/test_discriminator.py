"""The flow discriminator: what it sees, what it costs, how its file is written, and which files it refuses."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from motionprompt_core.discriminator.features import successive_flows
from motionprompt_core.discriminator.model import (
    DiscriminatorConfig,
    FlowDiscriminator,
    load_discriminator,
    save_discriminator,
)

TINY = DiscriminatorConfig(
    img_size=32,
    patch_size=8,
    embed_dim=32,
    depth=2,
    num_heads=2,
    mlp_hidden=32,
    flow_model="raft_small",
    trained_on="nothing",
    family="test",
)


def tiny(seed: int = 0, config: DiscriminatorConfig = TINY) -> FlowDiscriminator:
    torch.manual_seed(seed)
    return FlowDiscriminator(config).eval()


def some_flow(batch: int = 2, height: int = 48, width: int = 64, flows: int = 1) -> torch.Tensor:
    return 3 * torch.randn(batch, 2 * flows, height, width, generator=torch.Generator().manual_seed(1))


def rewrite(path, *, header=None, change=None):
    """Save the file anew with other metadata or tensors."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    if change:
        change(state)
    save_file(state, path, metadata={**metadata, **(header or {})})


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "disc.safetensors"
    save_discriminator(tiny(), path, auroc=0.875, clips=12)
    return path


def test_the_default_is_small():
    assert sum(parameter.numel() for parameter in FlowDiscriminator(DiscriminatorConfig()).parameters()) < 1.5e6


@pytest.mark.parametrize("size", [(64, 64), (72, 128), (32, 32)])
def test_one_logit_a_flow_at_any_size(size):
    assert tiny()(some_flow(3, *size)).shape == (3,)


def test_what_it_sees_does_not_depend_on_resolution():
    """The same motion at twice the resolution has twice the pixels: the network must see the same."""
    model = tiny()
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    flow = torch.stack((torch.sin(2 * x), torch.cos(2 * y))).unsqueeze(0) * 3
    large = torch.nn.functional.interpolate(flow, scale_factor=4, mode="bilinear") * 4
    assert (model.normalise(flow) - model.normalise(large)).abs().max() < 0.02
    assert model(flow).item() == pytest.approx(model(large).item(), abs=2e-3)


def test_huge_motion_stays_in_range():
    assert model_range(1e5) < 15 < 1e5 and torch.isfinite(tiny()(some_flow() * 1e5)).all()


def model_range(factor: float) -> float:
    return tiny().normalise(some_flow() * factor).abs().max().item()


FINE = replace(TINY, stem=4, detail=256.0)


def test_detail_shows_what_is_small_beside_the_motion_around_it():
    """A quarter pixel of jitter on a pan of 20 px: the flow itself hardly changes, its detail does."""
    pan = torch.full((1, 2, 64, 64), 20.0)
    jitter = 0.25 * torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(3))
    seen = [tiny(config=FINE).normalise(flow) for flow in (pan, pan + jitter)]
    assert seen[0].shape == (1, 4, 32, 32) and seen[0][:, 2:].abs().max() < 1e-4
    change = (seen[1] - seen[0]).abs().mean(dim=(0, 2, 3))
    assert change[2:].min() > 5 * change[:2].max()


BANDS = replace(FINE, img_size=64, patch_size=16, bands=4, pool="avg")


def test_bands_tell_fine_roughness_from_coarse_at_any_resolution():
    def strength(cells: int, size: int) -> torch.Tensor:
        noise = torch.randn(1, 2, cells, cells, generator=torch.Generator().manual_seed(3)) * size / 64
        flow = torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic")
        return tiny(config=BANDS).normalise(flow)[0, 4:].mean(dim=(1, 2))

    fine, coarse = strength(48, 64), strength(6, 64)
    assert len(fine) == 5 and fine[1] > coarse[1] + 0.2 and fine[4] < coarse[4] - 0.2
    assert torch.allclose(strength(6, 128), coarse, atol=0.05)


ROWS = replace(BANDS, flows=3, statistics=True)


def test_flows_in_a_row_show_where_motion_changes_along_its_path():
    """A block that moves evenly, and one that jumps back: only the second changes its motion."""
    even = torch.zeros(1, 6, 64, 64)
    even[:, 0::2] = 2.0
    jumping = even.clone()
    jumping[:, 2, 20:40, 20:40] = -2.0
    seen = [tiny(config=ROWS).normalise(flow) for flow in (even, jumping)]
    changes = [x[0, 4:8].abs() for x in seen]
    assert changes[0].max() < 1e-4
    assert changes[1][0, 30, 30] > 1 and changes[1][2, 30, 30] > 1 and changes[1][:, 5, 55].max() < 1e-4
    assert torch.equal(seen[0][:, :4], seen[1][:, :4])  # the first flow is the same


def test_changes_are_looked_up_where_the_motion_leads_in_frames_of_any_shape():
    """Six px down in 48: what is new in the second flow at row 30 happened to what was in row 24."""
    flow = torch.zeros(1, 6, 48, 96)
    flow[:, 1::2] = 6.0
    flow[:, 2, 29:32] = 3.0
    change = tiny(config=ROWS).normalise(flow)[0, 4].abs().mean(dim=1)
    centre = (change * torch.arange(64.0)).sum() / change.sum()
    assert centre.item() == pytest.approx(24.5 / 48 * 64 - 0.5, abs=0.5)


def test_rows_of_a_video_s_flows():
    flow = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 4, 4)
    assert torch.equal(successive_flows(flow, 1), flow)
    rows = successive_flows(flow, 3, gap=2)
    assert rows.shape == (2, 6, 4, 4) and rows[:, ::2, 0, 0].tolist() == [[0, 2, 4], [1, 3, 5]]
    with pytest.raises(ValueError, match=r"judges 3 flows in a row, 2 frame\(s\) apart, and there are 4"):
        successive_flows(flow[:4], 3, gap=2)


@pytest.mark.parametrize("config", [FINE, BANDS, ROWS])
def test_a_file_with_stem_and_detail_bands_or_rows_comes_back(tmp_path, config):
    save_discriminator(tiny(config=config), tmp_path / "fine.safetensors")
    model, flow = load_discriminator(tmp_path / "fine.safetensors"), some_flow(flows=config.flows)
    assert model.config == config and torch.equal(model(flow), tiny(config=config)(flow))


def test_a_stem_needs_patches_of_its_stride():
    with pytest.raises(ValueError, match="stem 4, detail 0.0, patch_size 4; expected .* multiple of 8"):
        replace(TINY, stem=4, patch_size=4)


@pytest.mark.parametrize("config", [TINY, FINE, BANDS, ROWS])
def test_gradient_agrees_with_central_differences(config):
    model = tiny(config=config).double()
    flow = some_flow(1, flows=config.flows).double()
    direction = flow.flip(3)
    flow.requires_grad_()
    (gradient,) = torch.autograd.grad(model(flow).sum(), flow)
    with torch.no_grad():
        # A small step: interpolation between pixels has kinks.
        numeric = (model(flow + 1e-7 * direction) - model(flow - 1e-7 * direction)).item() / 2e-7
    assert abs(numeric) > 1e-6
    assert (gradient * direction).sum().item() == pytest.approx(numeric, rel=1e-5)


def test_saved_and_loaded_is_the_same(saved):
    model = load_discriminator(saved)
    assert torch.equal(model(some_flow()), tiny()(some_flow()))
    assert model.config == TINY
    assert model.metadata == {"auroc": 0.875, "clips": 12}
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


def test_measurements_survive_saving_again(saved):
    save_discriminator(load_discriminator(saved), saved, accuracy=0.8)
    assert load_discriminator(saved).metadata == {"auroc": 0.875, "clips": 12, "accuracy": 0.8}


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def full_disk(*_args, **_kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("motionprompt_core.media.files.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_discriminator(tiny(1), saved)
    assert saved.read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_backbone_starts_from_given_weights(tmp_path):
    source = tiny(5, replace(TINY, img_size=64)).backbone
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    model = FlowDiscriminator(TINY, pretrained=tmp_path / "vit.safetensors")
    assert torch.equal(model.backbone.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    assert model(some_flow()).shape == (2,)  # the positions of the larger picture were resized


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*gone.safetensors"):
        load_discriminator(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_truncated_file(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="disc.safetensors cannot be read: it is truncated.*again"):
        load_discriminator(saved)


@pytest.mark.parametrize("old_format", [False, True])
def test_a_pickle_is_refused_whatever_its_name(saved, old_format):
    torch.save(tiny().state_dict(), saved, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(ValueError, match="disc.safetensors is a pickle.*expected a .safetensors"):
        load_discriminator(saved)


def test_another_model_is_refused(saved):
    save_file(tiny().state_dict(), saved)
    with pytest.raises(ValueError, match="another architecture: a safetensors file without a flow discriminator's"):
        load_discriminator(saved)


def test_other_tensors_than_the_configuration_says(saved):
    rewrite(saved, header={"config": json.dumps({**asdict(TINY), "depth": 3})})
    with pytest.raises(ValueError, match=r"another architecture: 12 expected tensors are missing \(backbone.blocks.2"):
        load_discriminator(saved)
    rewrite(saved, header={"config": json.dumps({**asdict(TINY), "mlp_hidden": 48})})
    with pytest.raises(ValueError, match=r"head.0.bias has shape \(32,\), expected \(48,\)"):
        load_discriminator(saved)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(saved, bad):
    rewrite(saved, change=lambda state: state["head.2.weight"].view(-1)[7:8].fill_(bad))
    with pytest.raises(ValueError, match="disc.safetensors is damaged: head.2.weight has NaN or infinite.*again"):
        load_discriminator(saved)


@pytest.mark.parametrize(
    "config",
    [
        "no json",
        "[]",
        '{"wings": 2}',
        '{"depth": "many"}',
        '{"backbone": "resnet50"}',
        '{"backbone": "vit_unheard_of"}',
        '{"noise_conditioned": true}',
    ],
)
def test_a_configuration_that_cannot_be_used(saved, config):
    rewrite(saved, header={"config": config})
    with pytest.raises(ValueError, match="disc.safetensors has a configuration that cannot be used.*update"):
        load_discriminator(saved)


def test_a_newer_file_format(saved):
    rewrite(saved, header={"format_version": "2"})
    with pytest.raises(ValueError, match="format version 2, expected 1.*update"):
        load_discriminator(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 7}, "img_size 32 is no multiple of patch_size 7"),
        ({"num_heads": 5}, "embed_dim 32 is no multiple of num_heads 5"),
        ({"depth": 0}, "depth is 0, expected more than 0"),
        ({"bands": 6}, "bands 6, pool 'token'; expected 0 to 5 bands"),
        ({"pool": "max"}, "pool 'max'; expected .* a pool of token, avg"),
        ({"flows": 5}, "flows 5, .* expected 1 to 4 flows"),
        ({"statistics": True}, "statistics only with bands"),
    ],
)
def test_impossible_configurations_are_refused_where_they_are_made(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def test_something_that_is_no_flow_is_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 3, 8, 8\), expected \(B, 2, H, W\)"):
        tiny()(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"shape \(1, 2, 8, 8\), expected \(B, 6, H, W\)"):
        tiny(config=ROWS)(torch.zeros(1, 2, 8, 8))


@pytest.mark.parametrize("kind", ["int8", "int64", "bool", "complex64", "float8_e4m3fn"])
def test_weights_of_other_types_are_refused_by_name(saved, kind):
    def cast(state):
        for key in state:
            state[key] = state[key].to(getattr(torch, kind))

    rewrite(saved, change=cast)
    with pytest.raises(ValueError, match=f"disc.safetensors cannot be used: .* has {kind}, expected floating point"):
        load_discriminator(saved)


@pytest.mark.parametrize(
    "large",
    [{"depth": 1_000_000}, {"img_size": 2**15}, {"embed_dim": 10**6, "num_heads": 1}, {"depth": 60, "embed_dim": 2048}],
)
def test_a_small_file_cannot_ask_for_a_large_network(saved, large):
    """It is refused from its header; nothing of that size is ever built."""
    rewrite(saved, header={"config": json.dumps({**asdict(TINY), **large})})
    with pytest.raises(ValueError, match=r"disc.safetensors (has a configuration that cannot be used|holds another)"):
        load_discriminator(saved)


@pytest.mark.parametrize("measured", ["5", "[1, 2]", "null", "true", "[" * 100_000 + "]" * 100_000])
def test_measurements_that_are_no_object_are_refused(saved, measured):
    rewrite(saved, header={"measured": measured})
    with pytest.raises(ValueError, match="disc.safetensors is damaged: measurements are no JSON"):
        load_discriminator(saved)


@pytest.mark.parametrize(
    "change",
    [{"detail": float("nan")}, {"flow_scale": float("inf")}, {"flow_scale": 1e308}, {"depth": True}, {"depth": 2.0}],
)
def test_numbers_that_are_none_are_refused_in_a_configuration(saved, change):
    rewrite(saved, header={"config": json.dumps({**asdict(TINY), **change})})
    with pytest.raises(ValueError, match="disc.safetensors has a configuration that cannot be used: .* expected"):
        load_discriminator(saved)


def test_finite_weights_whose_logits_are_not_are_refused(saved):
    def grow(state):
        for key in state:
            state[key] = torch.full_like(state[key], 1e38)

    rewrite(saved, change=grow)
    with pytest.raises(ValueError, match="makes logits that are not finite"):
        load_discriminator(saved)
