"""In live servers of every ComfyUI version: the gradient for the tokens is the slope that differences find."""

from __future__ import annotations

import json
from typing import Any

import pytest

SETTINGS = {"start": 0.0, "stop": 0.25, "lambda_tv": 0.0}


def graph(
    motion: str | None, cfg: float, frames: int, context: int | None, settings: dict[str, Any], demo: bool, size: int
) -> dict[str, Any]:
    """A prompt in API format: tiny models or the demo's, a probe on the model, the stock KSampler."""
    models = ("MotionPromptLoadDemoVideoModel", {}) if demo else ("TinyVideoModel", {"dtype": "fp32", "seed": 0})
    nodes: dict[str, Any] = {
        "models": models,
        "flow": ("GradientFlow", {}),
        "discriminator": ("TinyDiscriminator", {}),
        "positive": (
            "MotionPromptConditioning",
            {
                "clip": ["models", 1],
                "text": "a (red:1.2) ball rolling",
                "token_count": 2,
                "init_words": "authentic",
                "placement": "end",
            },
        ),
        "negative": ("CLIPTextEncode", {"clip": ["models", 1], "text": "blurry"}),
        "latent": ("EmptyLatentImage", {"width": size, "height": size, "batch_size": frames}),
    }
    model = ["models", 0]
    if motion is not None:
        nodes["motion"] = ("TinyMotionModel", {"version": motion})
        nodes["motions"] = ("ADE_ApplyAnimateDiffModelSimple", {"motion_model": ["motion", 0]})
        evolved = {"model": model, "beta_schedule": "autoselect", "m_models": ["motions", 0]}
        if context is not None:
            window = {"context_length": context, "context_stride": 1, "context_overlap": 2}
            nodes["context"] = ("ADE_StandardUniformContextOptions", window)
            evolved["context_options"] = ["context", 0]
        nodes["evolved"] = ("ADE_UseEvolvedSampling", evolved)
        model = ["evolved", 0]
    nodes["probe"] = (
        "GradientProbe",
        {
            "model": model,
            "vae": ["models", 2],
            "flow_model": ["flow", 0],
            "discriminator": ["discriminator", 0],
            "settings": json.dumps({**SETTINGS, **settings}),
            "epsilon": 3e-3,
        },
    )
    nodes["sampler"] = (
        "KSampler",
        {
            "model": ["probe", 0],
            "seed": 3,
            "steps": 4,
            "cfg": cfg,
            "sampler_name": "euler",
            "scheduler": "normal",
            "positive": ["positive", 0],
            "negative": ["negative", 0],
            "latent_image": ["latent", 0],
            "denoise": 1.0,
        },
    )
    nodes["show"] = ("ShowGradientProbe", {"probe": ["probe", 1], "latent": ["sampler", 0]})
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def assert_slopes_agree(server: Any, **options: Any) -> None:
    options = {
        "motion": None,
        "cfg": 1.0,
        "frames": 3,
        "context": None,
        "settings": {},
        "demo": False,
        "size": 64,
        **options,
    }
    result = server.queue(graph(**options))
    slopes = json.loads(result.text("show"))
    assert slopes
    for slope in slopes:
        assert slope["autograd"] > 1e-6
        assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)


@pytest.mark.every_version
@pytest.mark.parametrize("cfg", [1.0, 7.0])
def test_image_model(comfy_server, cfg):
    assert_slopes_agree(comfy_server, cfg=cfg)


@pytest.mark.every_version
def test_loss_on_the_mixed_estimate(comfy_server):
    assert_slopes_agree(comfy_server, cfg=7.0, settings={"loss_on": "cfg"})


@pytest.mark.every_version
@pytest.mark.parametrize("cfg", [1.0, 7.0])
def test_demo_model(comfy_server, cfg):
    assert_slopes_agree(comfy_server, demo=True, cfg=cfg, frames=8, size=128)


@pytest.mark.every_version
@pytest.mark.ade
@pytest.mark.parametrize("cfg", [1.0, 7.0])
@pytest.mark.parametrize("motion", ["v1", "v2", "v3"])
def test_motion_models(comfy_server, motion, cfg):
    assert_slopes_agree(comfy_server, motion=motion, cfg=cfg)


@pytest.mark.ade
@pytest.mark.parametrize("checkpointing", ["off", "on"])
@pytest.mark.parametrize("motion", ["v1", "v2"])
def test_sliding_context(comfy_server, motion, checkpointing):
    assert_slopes_agree(comfy_server, motion=motion, frames=6, context=4, settings={"checkpointing": checkpointing})
