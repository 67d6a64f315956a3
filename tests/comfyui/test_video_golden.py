"""The native video networks, and sampling with them, against outputs of the official code (golden/README.md)."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from tests.comfyui.video_models import (
    FULL,
    FULL_RESAMPLER,
    SMALL,
    SMALL_RESAMPLER,
    VideoModels,
    digest,
    error,
    frames_first,
    golden,
    golden_keys,
    official_weights,
)

pytestmark = pytest.mark.inprocess

NETWORKS = [
    ("lavie", "lavie_unet_5x8x16", {}),
    ("lavie", "lavie_unet_20x8x8", {}),
    ("lavie", "lavie_unet_3x10x12", {}),
    ("videocrafter", "videocrafter2_unet_16x8x8", {}),
    ("videocrafter", "videocrafter2_unet_5x8x16", {}),
    ("dynamicrafter", "dynamicrafter_unet_512", {}),
    ("dynamicrafter", "dynamicrafter_unet_512_5frames", {}),
    ("dynamicrafter", "dynamicrafter_unet_256", {"learned_image_scale": True}),
]
TOLERANCE, TOLERANCE_ZERO_SNR = 5e-6, 5e-4
OFFICIAL = {"lavie": "lavie", "videocrafter": "videocrafter2", "dynamicrafter": "dynamicrafter"}


@pytest.fixture(scope="module")
def video(comfy) -> VideoModels:
    return VideoModels(comfy)


def network_error(network: Any, name: str, **changes: Any) -> float:
    """Error of a network's prediction, both clips of the reference at once."""
    reference = golden(name)
    frames = reference["x"].shape[2]

    def each_frame(value: torch.Tensor) -> torch.Tensor:
        return value.repeat_interleave(frames, 0)

    context, extra = reference["context"], {}
    if context.shape[1] > 77:
        context, extra["image_tokens"] = context[:, :77], each_frame(context[:, 77:])
    for key in ("fps", "fs"):
        if key in reference:
            extra["fps"] = each_frame(reference[key])
    extra |= changes
    with torch.inference_mode():
        found = network(
            frames_first(reference["x"]),
            each_frame(reference["timesteps"]),
            each_frame(context),
            transformer_options={"cond_or_uncond": [0, 1]},
            **extra,
        )
    return error(found, frames_first(reference["output"]))


@pytest.mark.parametrize(("family", "name", "changes"), NETWORKS, ids=[name for _, name, _ in NETWORKS])
def test_network(video, family, name, changes):
    assert network_error(video.network(family, **changes), name) < TOLERANCE


def test_resampler(video):
    reference = golden("dynamicrafter_resampler")
    resampler = video.module("video_unet.resampler").Resampler(**SMALL_RESAMPLER, operations=torch.nn)
    resampler.load_state_dict(official_weights({k: tuple(t.shape) for k, t in resampler.state_dict().items()}))
    with torch.inference_mode():
        assert error(resampler(reference["x"]), reference["output"]) < TOLERANCE


@pytest.mark.parametrize("family", SMALL)
def test_names_and_shapes_of_the_full_size_are_the_official_files(video, family):
    found = video.shapes(family, {"model_channels": 320, **FULL[family]})
    assert digest(found) == golden_keys()[f"{OFFICIAL[family]}_full"]
    small = video.shapes(family, {"model_channels": 32, "context_dim": 16, **SMALL[family]})
    assert digest(small) == golden_keys()[f"{OFFICIAL[family]}_small"]


def test_names_and_shapes_of_the_rest(video):
    resampler = video.module("video_unet.resampler").Resampler(**FULL_RESAMPLER, operations=torch.nn, device="meta")
    shapes = {key: tuple(tensor.shape) for key, tensor in resampler.state_dict().items()}
    assert digest(shapes) == golden_keys()["resampler_full"]
    config = {"model_channels": 32, "context_dim": 16, **SMALL["dynamicrafter"], "learned_image_scale": True}
    assert digest(video.shapes("dynamicrafter", config)) == golden_keys()["dynamicrafter_256_small"]


# -- sampling, through ComfyUI's own guider and samplers ---------------------------------------------------------------


def sample_error(video: VideoModels, family: str, variant: Any, name: str, rescale: float = 0.0, **conds: Any) -> float:
    """Error of a sampled clip."""
    import comfy.samplers

    reference = golden(name)
    model = video.model(family, variant)
    if rescale:
        model = video.module("video_unet.guidance").rescaled_cfg(model, rescale)
    sampling = model.model.model_sampling
    sigmas = torch.cat((sampling.sigmas[reference["timesteps"]], torch.zeros(1)))
    noise = frames_first(reference["x_T"])
    # The reference gives what the network sees first; ComfyUI makes that of the noise at the last noise level only.
    if not comfy.samplers.Sampler().max_denoise(type("Wrap", (), {"inner_model": model.model}), sigmas):
        data = getattr(sampling, "sigma_data_at", torch.ones_like)(sigmas[:1])
        noise = noise * (1 + (data / sigmas[0]) ** 2) ** 0.5
    options = {}
    if "noises" in reference:
        noises = iter(reference["noises"])
        options = {"eta": 1.0, "noise_sampler": lambda *_: frames_first(next(noises))}
    sampler = comfy.samplers.ksampler("euler_ancestral" if options else "euler", options)
    guider = comfy.samplers.CFGGuider(model)
    negative, positive = (conditioning(reference, row, **conds) for row in (0, 1))
    guider.set_conds(positive, negative)
    guider.set_cfg(4.0)
    with torch.inference_mode():
        found = guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=0)
    expected = frames_first(reference["output"])
    return error(model.model.latent_format.process_in(found), expected)


def conditioning(reference: dict[str, torch.Tensor], row: int, **entries: Any) -> list[Any]:
    text = reference["context"][row : row + 1]
    if "image_latent" in reference:
        entries["dynamicrafter_image"] = text[:, 77:]
        entries["concat_latent_image"] = frames_first(reference["image_latent"]) / 0.18215
    return [[text[:, :77], entries]]


def variants(video: VideoModels) -> dict[str, Any]:
    families = [video.family(name).variants for name in SMALL]
    return {variant.name: variant for variants in families for variant in variants}


SAMPLES = [
    ("lavie", "LaVie", "lavie_sample_ddim", {}, TOLERANCE),
    ("lavie", "LaVie", "lavie_sample_ddpm", {}, TOLERANCE),
    ("videocrafter", "VideoCrafter2", "videocrafter2_sample_ddim", {"fps": 28}, TOLERANCE),
    ("dynamicrafter", "512", "dynamicrafter_sample_512_ddim_rescale", {"rescale": 0.7}, TOLERANCE_ZERO_SNR),
    (
        "dynamicrafter",
        "1024",
        "dynamicrafter_sample_1024_ddim_rescale",
        {"rescale": 0.7, "fps": 24},
        TOLERANCE_ZERO_SNR,
    ),
]


@pytest.mark.parametrize(("family", "variant", "name", "options", "tolerance"), SAMPLES, ids=[s[2] for s in SAMPLES])
def test_sampling(video, family, variant, name, options, tolerance):
    assert sample_error(video, family, variants(video)[variant], name, **options) < tolerance


# -- each mistake that could be made is one that the references show ---------------------------------------------------


def _norms_per_frame(network: Any, video: VideoModels) -> None:
    for module in network.modules():
        if hasattr(module, "joint_norm"):
            module.joint_norm = False


def _eps(network: Any, video: VideoModels) -> None:
    for module in network.modules():
        if type(module).__name__ in ("SpatialTransformer", "TemporalTransformer"):
            module.norm.eps = 1e-5


def _patched(name: str, change: Any) -> Any:
    def patch(network: Any, video: VideoModels) -> contextlib.AbstractContextManager[Any]:
        module, _, attribute = name.rpartition(".")
        monkeypatch = pytest.MonkeyPatch()
        target = video.module(f"video_unet.{module}")
        monkeypatch.setattr(target, attribute, change(getattr(target, attribute)))
        return contextlib.closing(type("Undo", (), {"close": staticmethod(monkeypatch.undo)}))

    return patch


def _without(attribute: str) -> Any:
    def remove(network: Any, video: VideoModels) -> None:
        setattr(network, attribute, torch.nn.Sequential())

    return remove


def _temporal_norms_per_frame(layers: Any) -> Any:
    def over_frames(layer: Any, x: torch.Tensor, frames: int) -> torch.Tensor:
        return layers(layer, x, 1) if type(layer).__name__ == "TemporalConvolution" else layers(layer, x, frames)

    return over_frames


MISTAKES = [
    ("LaVie: GroupNorm per frame", "lavie", "lavie_unet_5x8x16", _norms_per_frame, {}),
    ("LaVie: no rotary positions", "lavie", "lavie_unet_5x8x16", _patched("layers.rotate", lambda _: lambda x: x), {}),
    (
        "LaVie: no relative bias",
        "lavie",
        "lavie_unet_5x8x16",
        _patched("layers.attend_with_bias", lambda attend: lambda q, k, v, bias: attend(q, k, v, 0 * bias)),
        {},
    ),
    (
        "LaVie: bias the other way round",
        "lavie",
        "lavie_unet_5x8x16",
        _patched("layers.attend_with_bias", lambda attend: lambda q, k, v, bias: attend(q, k, v, bias.mT)),
        {},
    ),
    ("VideoCrafter2: no frame rate", "videocrafter", "videocrafter2_unet_5x8x16", None, {"fps": None}),
    (
        "VideoCrafter2: no first temporal transformer",
        "videocrafter",
        "videocrafter2_unet_5x8x16",
        _without("init_attn"),
        {},
    ),
    ("VideoCrafter2: eps of the transformers' GroupNorm", "videocrafter", "videocrafter2_unet_5x8x16", _eps, {}),
    (
        "VideoCrafter2: temporal convolutions see one frame",
        "videocrafter",
        "videocrafter2_unet_5x8x16",
        _patched("layers.over_frames", _temporal_norms_per_frame),
        {},
    ),
    (
        "DynamiCrafter: every frame sees all image tokens",
        "dynamicrafter",
        "dynamicrafter_unet_512",
        _patched("unet.image_tokens_of_frames", lambda _: lambda tokens, frames: tokens),
        {},
    ),
]


@pytest.mark.parametrize(
    ("family", "name", "change", "inputs"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_references_show_the_mistake(video, family, name, change, inputs):
    network = video.network(family)
    with (change(network, video) if change else None) or contextlib.nullcontext():
        assert network_error(network, name, **inputs) > TOLERANCE


def test_references_show_mistakes_in_sampling(video):
    from dataclasses import replace

    known = variants(video)
    vc2, dc512 = known["VideoCrafter2"], known["512"]
    vc2_name, dc_name = "videocrafter2_sample_ddim", "dynamicrafter_sample_512_ddim_rescale"
    unscaled = replace(vc2, sampling={})
    assert sample_error(video, "videocrafter", unscaled, vc2_name, fps=28) > 1e-2
    assert sample_error(video, "videocrafter", vc2, vc2_name, fps=24) > 1e-4
    finite = replace(dc512, sampling={"latent_scale": 0.7})
    assert sample_error(video, "dynamicrafter", finite, dc_name, rescale=0.7) > 1e-2
    assert sample_error(video, "dynamicrafter", replace(dc512, v_prediction=False), dc_name, rescale=0.7) > 1e-2
    assert sample_error(video, "dynamicrafter", dc512, dc_name) > 1e-2  # not rescaled
