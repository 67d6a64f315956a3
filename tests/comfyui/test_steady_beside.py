"""Steady Motion beside other nodes that people put on a video model: before or after them it makes the same video."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.comfyui.tiny_hosts import TinyHost, same, streams

# Shares of the schedule.
ALWAYS = {"start_percent": 0.0, "end_percent": 1.0}
CACHE = {"reuse_threshold": 0.5, "verbose": False, **ALWAYS}
WINDOWS = {"context_length": 3, "context_overlap": 1, "context_schedule": "standard_static", "fuse_method": "pyramid"}


def lora(host: TinyHost, model: Any) -> Any:
    """Weight patches on every matrix, as a LoRA makes them."""
    model, noise = model.clone(), torch.Generator().manual_seed(0)
    weights = {key: weight for key, weight in model.model.state_dict().items() if weight.ndim == 2}
    assert model.add_patches({key: (0.05 * torch.randn(w.shape, generator=noise),) for key, w in weights.items()})
    return model


def cache_of_outputs(host: TinyHost, model: Any) -> Any:
    """As TeaCache and its kin: every second evaluation of a sampling is the one before."""
    model, kept = model.clone(), {"sigma": 0.0, "count": 0}

    def wrapper(apply: Callable[..., torch.Tensor], args: dict[str, Any]) -> torch.Tensor:
        sigma = float(args["timestep"].flatten()[0])
        kept["count"] = 0 if sigma >= kept["sigma"] else kept["count"] + 1
        kept["sigma"] = sigma
        if kept["count"] % 2 == 0:
            kept["output"] = apply(args["input"], args["timestep"], **args["c"])
        return kept["output"]

    model.set_model_unet_function_wrapper(wrapper)
    return model


def node(name: str, **inputs: Any) -> Callable[[TinyHost, Any], Any]:
    def apply(host: TinyHost, model: Any) -> Any:
        if name not in host.comfy.nodes.NODE_CLASS_MAPPINGS:
            pytest.skip(f"this ComfyUI has no {name}")
        return host.comfy.run(name, model=model, **inputs)[0]

    return apply


BESIDE: dict[str, Callable[[TinyHost, Any], Any]] = {
    "LoRA": lora,
    "shift": node("ModelSamplingSD3", shift=3.0),
    "CFG zero star": node("CFGZeroStar"),
    "CFG norm": node("CFGNorm"),
    "rescale CFG": node("RescaleCFG"),
    "TCFG": node("TCFG"),
    "APG": node("APG"),
    "FreSca": node("FreSca", freq_cutoff=1),
    "Mahiro": node("Mahiro"),
    "skipped layer": node("SkipLayerGuidanceDiT", double_layers="0", single_layers="0", **ALWAYS),
    "skipped layer, simple": node("SkipLayerGuidanceDiTSimple", double_layers="0", single_layers="0", **ALWAYS),
    "NAG": node("NAGuidance"),
    "EasyCache": node("EasyCache", **CACHE),
    "LazyCache": node("LazyCache", **CACHE),
    "cache of outputs": cache_of_outputs,
    "compiled": node("TorchCompileModel", backend="eager"),
    "context windows": node("ContextWindowsManual", dim=2, **WINDOWS),
}


@pytest.fixture(scope="module")
def host(tiny):
    return TinyHost(tiny.comfy, "wan22_i2v", tiny.flow)


def long(host: TinyHost) -> dict[str, Any]:
    """Two windows of latents with a start image."""
    latent = host.latent(17)
    length = latent["samples"].shape[2]
    prompts = {
        name: host.hosts.with_start([[prompt[0][0], {}]], latents=length)
        for name, prompt in (("positive", host.positive), ("negative", host.negative))
    }
    return {"latent_image": latent, "steps": 4, "cfg": 3.0, **prompts}


def assert_either_order(host: TinyHost, apply: Callable[[Any], Any]) -> None:
    options = long(host)
    beside = apply(host.model)
    try:
        plain = host.sample(beside, **options)
    except RuntimeError as error:  # ComfyUI 0.3.75: context windows with a start image
        pytest.skip(f"without Steady Motion neither: {error}")
    first, report = host.patched(model=beside)
    corrected = host.sample(first, **options)
    assert report.steps and len({s.step for s in report.steps}) + len(report.left) == 4
    assert all(stream.isfinite().all() for stream in streams(corrected)) and not same(corrected, plain)
    patched, report = host.patched()
    assert same(host.sample(apply(patched), **options), corrected)
    assert report.steps and "No step" not in "\n".join(host.lines)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", BESIDE)
def test_before_or_after_another_node_it_is_the_same_video(host, name):
    assert_either_order(host, lambda model: BESIDE[name](host, model))


def test_before_or_after_all_of_them_at_once(host):
    together = ("LoRA", "shift", "CFG zero star", "skipped layer", "rescale CFG", "context windows")

    def apply(model: Any) -> Any:
        for name in together:
            model = BESIDE[name](host, model)
        return model

    assert_either_order(host, apply)
