"""LaVie, VideoCrafter2 and DynamiCrafter in live servers: from a file, by stock and guided samplers, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from scripts.comfy_server import ComfyExecutionError, ComfyServer
from tests.comfyui.guidance import shared_out
from tests.comfyui.video_models import FAMILIES, VideoModels

pytestmark = pytest.mark.every_version

SIZE, FRAMES = 64, 3
GUIDED = {"preset": "paper", "start": 0.0, "stop": 0.5, "iterations": 1}


@pytest.fixture(scope="module")
def files(comfy, comfy_server: ComfyServer) -> dict[str, str]:
    """Small checkpoints in the server's models/checkpoints, by family."""
    names = save_checkpoints(comfy, comfy_server)
    torch.save({"state_dict": VideoModels(comfy).state("lavie")}, _checkpoints(comfy_server) / "live_lavie.pt")
    return names


def save_checkpoints(comfy: Any, server: ComfyServer) -> dict[str, str]:
    folder, video = _checkpoints(server), VideoModels(comfy)
    names = {family: f"live_{family}_512.safetensors" for family in FAMILIES}
    for family, name in names.items():
        save_file({key: value.contiguous() for key, value in video.state(family).items()}, folder / name)
    return names


def _checkpoints(server: ComfyServer) -> Path:
    folder = Path(server.base_dir, "models", "checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def graph(server: ComfyServer, file: str, **sampling: Any) -> dict[str, Any]:
    """The models and prompts of a checkpoint, in API format, as (class, inputs); nothing is sampled yet."""
    nodes: dict[str, Any] = {
        "model": ("MotionPromptLoadVideoCheckpoint", {"name": file, "variant": "auto", "encoders": "(the file's own)"}),
        "tiny": ("TinyVideoModel", {"dtype": "fp32", "seed": 0}),
        "flow": ("GradientFlow", {}),
        "discriminator": ("TinyDiscriminator", {}),
        "positive": (
            "MotionPromptConditioning",
            {"clip": ["tiny", 1], "text": "a (red:1.2) ball rolling", "init_words": "authentic"},
        ),
        "plain": ("CLIPTextEncode", {"clip": ["tiny", 1], "text": "a (red:1.2) ball rolling"}),
        "negative": ("CLIPTextEncode", {"clip": ["tiny", 1], "text": "blurry"}),
        "latent": ("EmptyLatentImage", {"width": SIZE, "height": SIZE, "batch_size": FRAMES}),
    }
    nodes["positive"][1].update(token_count=2, placement="end")
    if "dynamicrafter" in file:
        nodes["vision"] = ("TinyClipVision", {})
        nodes["image"] = ("EmptyImage", {"width": 96, "height": 64, "batch_size": 1, "color": 0x3080C0})
        for name in ("positive", "plain"):
            inputs = {"positive": [name, 0], "negative": ["negative", 0], "vae": ["tiny", 2], "image": ["image", 0]}
            inputs |= {"clip_vision": ["vision", 0], "width": SIZE, "height": SIZE, "frames": FRAMES, "fps": 0}
            nodes[f"{name} image"] = ("MotionPromptDynamiCrafterImageToVideo", inputs)
    return nodes


def add_sampler(nodes: dict[str, Any], name: str, kind: str, prompt: str, **inputs: Any) -> None:
    """A sampler node, its frames decoded and saved."""
    positive, negative = [prompt, 0], ["negative", 0]
    if f"{prompt} image" in nodes:
        positive, negative = [f"{prompt} image", 0], [f"{prompt} image", 1]
    sampling = {"seed": 3, "steps": 4, "cfg": 5.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    sampling |= {"model": ["model", 0], "positive": positive, "negative": negative, "latent_image": ["latent", 0]}
    nodes[name] = (kind, {**sampling, **inputs})
    nodes[f"decode {name}"] = ("VAEDecode", {"samples": [name, 0], "vae": ["tiny", 2]})
    nodes[f"save {name}"] = ("SaveImage", {"images": [f"decode {name}", 0], "filename_prefix": f"video/{name}"})


def add_guided(nodes: dict[str, Any], name: str, **options: Any) -> None:
    sliders, rest = shared_out({**GUIDED, **options})
    nodes[f"settings {name}"] = ("MotionPromptSettings", rest)
    models = {"vae": ["tiny", 2], "flow_model": ["flow", 0], "discriminator": ["discriminator", 0]}
    settings = {"settings": [f"settings {name}", 0]}
    add_sampler(nodes, name, "MotionPromptKSampler", "positive", **models, **settings, **sliders)


def prompt_of(nodes: dict[str, Any]) -> dict[str, Any]:
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_from_a_file_through_stock_and_guided_samplers(comfy_server, files, family):
    frames, slope = stock_and_guided(comfy_server, files[family])
    assert frames["stock"].shape == (FRAMES, SIZE, SIZE, 3)
    assert frames["stock"].std() > 1
    assert np.array_equal(frames["off"], frames["stock"])
    assert not np.array_equal(frames["guided"], frames["stock"])
    assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)


def stock_and_guided(server: ComfyServer, file: str) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Frames by the stock sampler, by ours at strength 0, and guided; and a gradient's slopes."""
    nodes = graph(server, file)
    add_sampler(nodes, "stock", "KSampler", "plain")
    add_guided(nodes, "off", strength=0.0)
    add_guided(nodes, "guided")
    probe = {
        "model": ["model", 0],
        "vae": ["tiny", 2],
        "flow_model": ["flow", 0],
        "discriminator": ["discriminator", 0],
    }
    settings = json.dumps({"start": 0.0, "stop": 0.25, "lambda_tv": 0.0})
    nodes["probe"] = ("GradientProbe", {**probe, "settings": settings, "epsilon": 3e-3})
    add_sampler(nodes, "probed", "KSampler", "positive", model=["probe", 0], cfg=1.0)
    nodes["slopes"] = ("ShowGradientProbe", {"probe": ["probe", 1], "latent": ["probed", 0]})
    result = server.queue(prompt_of(nodes))
    frames = {}
    for name in ("stock", "off", "guided"):
        files = result.files(f"save {name}")
        frames[name] = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files])
    return frames, json.loads(result.text("slopes"))[0]


def test_a_pickle_is_refused_with_what_to_do(comfy_server, files):
    nodes = graph(comfy_server, "live_lavie.pt")
    add_sampler(nodes, "stock", "KSampler", "plain")
    with pytest.raises(ComfyExecutionError, match=r"live_lavie.pt is a pickle.*motionprompt_tools convert") as caught:
        comfy_server.queue(prompt_of(nodes))
    assert caught.value.node_type == "MotionPromptLoadVideoCheckpoint"


def test_several_videos_in_a_latent_are_refused(comfy_server, files):
    nodes = graph(comfy_server, files["videocrafter"])
    nodes["latent"] = ("EmptyHunyuanLatentVideo", {"width": SIZE, "height": SIZE, "length": 9, "batch_size": 2})
    add_sampler(nodes, "stock", "KSampler", "plain")
    with pytest.raises(ComfyExecutionError, match="VideoCrafter2 makes frames as a batch"):
        comfy_server.queue(prompt_of(nodes))


NO_VIDEO_MEMORY = '''
"""ComfyUI loads models as with --novram, which it refuses where there is no GPU: each weight comes for its layer."""
import comfy.model_management as management
load_models, NODE_CLASS_MAPPINGS = management.load_models_gpu, {}

def load_models_gpu(*models, **how):
    before = management.is_device_cpu, management.vram_state
    management.is_device_cpu, management.vram_state = lambda device: False, management.VRAMState.NO_VRAM
    try:
        return load_models(*models, **how)
    finally:
        management.is_device_cpu, management.vram_state = before

management.load_models_gpu = load_models_gpu
'''


@pytest.mark.exhaustive
def test_with_no_video_memory_it_is_the_same_video(comfy, comfy_server, files, make_server, tmp_path):
    (tmp_path / "no_video_memory").mkdir()
    (tmp_path / "no_video_memory" / "__init__.py").write_text(NO_VIDEO_MEMORY)
    short = make_server(packs=[*comfy_server.packs, tmp_path / "no_video_memory"])
    save_checkpoints(comfy, short)
    for file in files.values():
        expected, _ = stock_and_guided(comfy_server, file)
        found, slope = stock_and_guided(short, file)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
        assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)
    assert "loaded partially; 0.00 MB usable, 0.00 MB loaded" in short.log()
