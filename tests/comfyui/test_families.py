"""Every model family of nodes/host/families does what all must do; these tests run over the registry."""

from __future__ import annotations

import ast
import re
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tests.comfyui.conftest import PROBES
from tests.comfyui.tiny_family import TinyFamily

TINY = {path.stem: path for path in sorted((PROBES / "tiny_models").glob("*.py"))}
FAMILIES = [name for name, path in TINY.items() if re.search(r"^FAMILY = ", path.read_text(), re.MULTILINE)]
LATENT_VIDEO = ["wan", "ltx"]


@pytest.fixture(scope="module", params=FAMILIES)
def video(request, tiny):
    return TinyFamily(tiny.comfy, request.param, tiny.flow, tiny.discriminator)


@pytest.fixture
def registry(tiny, monkeypatch):
    """The families by name; what a test takes out or puts in is undone."""
    base = tiny.comfy.module("nodes.host.families.base")
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    return base._REGISTRY


def test_every_family_has_a_tiny_model(registry):
    """Those that are guided by their estimate alone are in test_hosts.py."""
    assert sorted(FAMILIES) == sorted(n for n, family in registry.items() if family.tokens and not family.generic)


def test_a_model_is_known_by_its_own_family_alone(video, registry):
    known = [name for name, family in registry.items() if family.matches(video.model.model) and not family.generic]
    assert known == [video.family]


@pytest.mark.parametrize("off", [{"strength": 0.0}, {"stop": 0.0, "cfg": 1.0}], ids=["strength", "window"])
def test_switched_off_it_is_the_stock_ksampler_on_the_plain_prompt(video, off):
    latents, report = video.guided(**off)
    assert torch.equal(latents, video.stock(cfg=off.get("cfg", 5.0)))
    assert report.guided == []


def test_guided_it_is_another_video_each_time_the_same_and_nothing_stays_behind(video):
    before = video.stock()
    latents, report = video.guided(outside_window="tokens")
    assert report.guided == [0, 1]
    assert all(i.grad_norm > 0 for step in report.steps for i in step.iterations)
    assert latents.isfinite().all()
    assert not torch.equal(latents, before)
    torch.manual_seed(12345)
    assert torch.equal(video.guided(outside_window="tokens")[0], latents)
    assert torch.equal(video.stock(), before)


@pytest.mark.parametrize(
    ("cfg", "checkpointing"), [(5.0, "on"), pytest.param(1.0, "off", marks=pytest.mark.exhaustive)]
)
def test_the_gradient_for_the_tokens_is_the_slope(video, cfg, checkpointing):
    (slope,) = video.slopes(cfg=cfg, settings={"checkpointing": checkpointing}, epsilon=video.epsilon)
    assert slope["autograd"] > 1e-6
    assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)


def kept_by_the_denoiser(video, monkeypatch, **options) -> float:
    """Bytes that an evaluation with gradients leaves alive for the backward pass."""
    measure = video.comfy.module("research.cost.measure").measure
    evaluation = video.comfy.module("nodes.host.step_pass")._Evaluation
    original, kept = evaluation.predict_x0, []

    def measured(self, *args, **kwargs):
        result, cost = measure(lambda: original(self, *args, **kwargs))
        kept.append(cost.kept if result.requires_grad else 0.0)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "predict_x0", measured)
        video.guided(stop=0.25, **options)
    return max(kept)


def test_checkpoints_save_memory_and_leave_the_gradient(video, monkeypatch):
    blocks = list(video.handler.blocks(video.model.model.diffusion_model))
    assert blocks
    inside = [{id(module) for module in block.modules()} for block in blocks]
    assert not any(a & b for a, b in combinations(inside, 2)), "a block inside of another runs again for each"
    assert video.checkpointing_error() < 1e-4
    whole, saved = (kept_by_the_denoiser(video, monkeypatch, checkpointing=how) for how in ("off", "on"))
    assert saved < 0.6 * whole


def test_fast_takes_the_early_layers_as_given(video, monkeypatch):
    network = video.model.model.diffusion_model
    early = video.handler.early_layers(network)
    assert {id(layer) for layer in early} <= {id(module) for module in network.modules()}
    kept = {mode: kept_by_the_denoiser(video, monkeypatch, mode=mode) for mode in ("balanced", "fast")}
    assert kept["fast"] <= (0.9 if early else 1.0) * kept["balanced"]
    assert video.guided(mode="fast")[1].guided == [0, 1]


def test_in_a_stock_sampler_the_conditioning_is_the_prompt_with_the_init_words(video):
    learnable, words = video.prompt("a red ball", token_count=1), video.encode("a red ball authentic")
    assert torch.equal(learnable[0][0], words[0][0])
    masks = [conditioning[0][1].get("attention_mask") for conditioning in (learnable, words)]
    assert masks[0] is None or torch.equal(*masks)


def test_frames_become_latents_as_in_vae_encode(video):
    decoder, latents = video.decoder(), video.latent()["samples"]
    x0 = decoder.frames_first(torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)))
    assert decoder.as_model(x0).shape == latents.shape
    count = video.comfy.module("motionprompt_core.guidance.decoding").count_frames(decoder, x0)
    with torch.inference_mode():
        frames = decoder.show(x0, list(range(count))).movedim(-1, 1)
        (encoded,) = video.comfy.run("VAEEncode", vae=video.vae, pixels=frames.movedim(1, -1))
        found = decoder.encode(frames)
        expected = video.model.model.process_latent_in(encoded["samples"])
    assert found.shape == x0.shape
    torch.testing.assert_close(decoder.as_model(found), expected, rtol=1e-3, atol=1e-3)


def test_estimates_are_captured_too(video, tmp_path):
    capture = video.comfy.module("nodes.host.capture").FlowCapture(
        video.vae, video.flow, tmp_path, start=0.0, end=0.5, pairs=2, gaps=(1, 2), grid=32
    )
    assert torch.equal(video.stock(model=capture.attach(video.model)), video.stock())
    (file,) = tmp_path.glob("*.safetensors")
    kept = load_file(file)
    assert kept["flow"].shape == (4, 2, 32, 32) and kept["flow"].isfinite().all()


def test_context_windows_of_comfyui_cut_time(video):
    (model,) = video.comfy.run(
        "ContextWindowsManual", model=video.model, context_length=2, context_overlap=1, dim=video.handler.time
    )
    windows = video.handler.windows
    options, shape = model.model_options, list(video.latent()["samples"].shape)
    found = windows(model, options, shape)
    assert (found.length, found.overlap, shape[found.dim]) == (2, 1, shape[video.handler.time])
    shape[video.handler.time] = 2
    assert windows(model, options, shape) is None
    assert windows(video.model, video.model.model_options, [99] * len(shape)) is None


def refused(video, message, **options):
    with pytest.raises(ValueError, match=message):
        video.guided(**options)


def test_latents_and_vaes_of_another_layout_are_refused(video, tiny):
    time = video.handler.time
    one = video.latent()["samples"].narrow(time, 0, 1)
    refused(video, "one frame.*motion needs at least two", latent_image={"samples": one})
    check = video.handler.check_latents
    expected = {0: "frames as a batch", 2: "a video"}[time]
    with pytest.raises(ValueError, match=rf"\(1, 1, 999\).*{expected}.*sound"):
        check(torch.zeros(1, 1, 999))
    with pytest.raises(ValueError, match=f"nested.*{expected}"):
        check(SimpleNamespace(is_nested=True, shape=None))
    other = TinyFamily(tiny.comfy, "wan", tiny.flow, tiny.discriminator) if time == 0 else tiny
    refused(video, {0: "decoded one by one", 2: "single pictures.*video VAE"}[time], vae=other.vae)


@pytest.mark.parametrize("name", ["frames", *LATENT_VIDEO])
def test_a_model_that_no_family_knows_is_guided_the_same_and_it_is_said(tiny, registry, name):
    video = TinyFamily(tiny.comfy, name, tiny.flow, tiny.discriminator)
    expected, report = video.guided()
    assert "no file for models" not in report.summary()
    del registry[name]
    latents, report = video.guided()
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)
    assert f"no file for models of the kind {type(video.model.model).__name__}" in report.summary()


def test_a_model_that_makes_no_video_is_refused_by_name(tiny, registry):
    Sound = type("StableAudio1", (), {"latent_format": SimpleNamespace(latent_dimensions=1), "diffusion_model": None})
    with pytest.raises(ValueError, match="StableAudio1 makes neither frames.*nor a video"):
        tiny.comfy.module("nodes.host.families").family_of(Sound())


def test_a_name_is_registered_once_and_two_families_never_share_a_model(tiny, registry):
    families = tiny.comfy.module("nodes.host.families")
    known = type(registry["frames"])
    with pytest.raises(ValueError, match="model family 'frames' already"):
        families.register_family(known)
    families.register_family(type("Again", (known,), {"name": "again", "title": "Another"}))
    with pytest.raises(RuntimeError, match="AnimateDiff and Another both claim.*BaseModel"):
        families.family_of(tiny.model.model)


def test_the_host_asks_the_family_and_not_the_model(repo_root):
    """Outside of families/ nothing is decided by the number of dimensions or by a model's or decoder's class."""
    bad = []
    for path in sorted((repo_root / "nodes" / "host").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.unparse(node) if isinstance(node, (ast.Attribute, ast.Call)) else ""
            # lent.py counts the dimensions of layers' weights, and has nothing to do with latents
            asks = text.endswith((".ndim", ".dim()", ".latent_dimensions")) and path.name != "lent.py"
            asks |= text.startswith("isinstance(") and "Decoder" in text
            asks |= text.startswith(("getattr(", "hasattr(")) and "causal" in text
            if asks or (text.startswith("comfy.model_base.") and path.name != "demo_model.py"):
                bad.append(f"{path.name}:{node.lineno}: {text}")
    assert not bad, "\n".join(bad)
