"""In live servers of every version: start, colours, off is off, an error reaches the artist, Cancel stops a run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from motionprompt_tools.world import random_clip, render
from scripts.comfy_server import ComfyExecutionError, ComfyInterrupted, ComfyServer
from tests.comfyui.guidance import shared_out

pytestmark = pytest.mark.every_version


def demo_graph(guided: bool, frames: int = 4, **options: Any) -> dict[str, Any]:
    """A prompt in API format: the demo model, by MotionPrompt KSampler or by the stock one, saved losslessly."""
    nodes: dict[str, Any] = {
        "demo": ("MotionPromptLoadDemoVideoModel", {}),
        "positive": ("CLIPTextEncode", {"clip": ["demo", 1], "text": "a red star moving left on grass"}),
        "negative": ("CLIPTextEncode", {"clip": ["demo", 1], "text": ""}),
        "latent": ("EmptyLatentImage", {"width": 128, "height": 128, "batch_size": frames}),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["demo", 2]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "live/frame"}),
    }
    inputs: dict[str, Any] = {
        "model": ["demo", 0],
        "seed": 5,
        "steps": 4,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "latent_image": ["latent", 0],
        "denoise": 1.0,
    }
    nodes["sampler"] = ("KSampler", inputs)
    if guided:
        learnable = {"token_count": 1, "init_words": "smooth", "placement": "end"}
        nodes["positive"] = ("MotionPromptConditioning", {**nodes["positive"][1], **learnable})
        nodes["flow"] = ("GradientFlow", {})
        sliders, rest = shared_out({"start": 0.0, "stop": 0.5, "iterations": 1, "lambda_disc": 0.0, **options})
        inputs |= {"vae": ["demo", 2], "flow_model": ["flow", 0], "preset": "paper", "settings": ["settings", 0]}
        inputs |= sliders
        nodes["settings"] = ("MotionPromptSettings", rest)
        nodes["sampler"] = ("MotionPromptKSampler", inputs)
    return {name: {"class_type": kind, "inputs": values} for name, (kind, values) in nodes.items()}


def pictures(server: ComfyServer, prompt: dict[str, Any]) -> np.ndarray:
    """What the prompt saved, (frames, height, width, 3) in [0, 1]."""
    files = server.queue(prompt).files("save")
    return np.stack([np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255 for path in files])


def test_every_pack_is_loaded(comfy_server: ComfyServer) -> None:
    assert {"MotionPromptKSampler", "TinyVideoModel"} <= set(comfy_server.object_info())
    assert "(IMPORT FAILED)" not in comfy_server.log(), "what ComfyUI writes before the folder of a pack"


def test_switched_off_it_is_the_stock_ksampler(comfy_server: ComfyServer) -> None:
    plain = pictures(comfy_server, demo_graph(guided=False))
    off = pictures(comfy_server, demo_graph(guided=True, strength=0.0))
    guided = pictures(comfy_server, demo_graph(guided=True))
    assert np.array_equal(off, plain)
    assert not np.array_equal(guided, plain)


def test_an_error_names_the_node_and_what_to_do(comfy_server: ComfyServer) -> None:
    with pytest.raises(ComfyExecutionError, match=r"one frame.*batch_size") as caught:
        comfy_server.queue(demo_graph(guided=True, frames=1))
    assert caught.value.node_type == "MotionPromptKSampler"
    assert len(pictures(comfy_server, demo_graph(guided=False))) == 4, "the server goes on"


def test_the_demo_vae_gives_back_the_colours_of_the_rendered_world(comfy_server: ComfyServer, tmp_path: Path) -> None:
    video = render(random_clip(torch.Generator().manual_seed(1), 0.0))[0][0]
    picture = Image.fromarray((video.movedim(0, -1) * 255).round().byte().numpy())
    picture.save(tmp_path / "rendered_world.png")
    prompt = {
        "demo": ("MotionPromptLoadDemoVideoModel", {}),
        "load": ("LoadImage", {"image": comfy_server.upload(tmp_path / "rendered_world.png")}),
        "encode": ("VAEEncode", {"pixels": ["load", 0], "vae": ["demo", 2]}),
        "decode": ("VAEDecode", {"samples": ["encode", 0], "vae": ["demo", 2]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "live/world"}),
    }
    decoded = pictures(comfy_server, {k: {"class_type": kind, "inputs": value} for k, (kind, value) in prompt.items()})
    assert np.square(decoded[0] - np.asarray(picture, dtype=np.float32) / 255).mean() < 0.003


def test_the_cancel_button_stops_a_guided_run_and_changes_nothing(comfy_server: ComfyServer) -> None:
    def plain() -> np.ndarray:
        comfy_server.free()  # nothing comes from the cache
        return pictures(comfy_server, demo_graph(guided=False))

    before = plain()
    sampling = threading.Event()

    def watch(name: str, data: dict[str, Any]) -> None:
        if name == "progress" and data.get("node") == "sampler":
            sampling.set()

    with comfy_server.watch(on_event=watch):
        running = comfy_server.submit(demo_graph(guided=True, iterations=10, stop=1.0))
        assert sampling.wait(120)
        comfy_server.interrupt()
        with pytest.raises(ComfyInterrupted, match="MotionPromptKSampler"):
            comfy_server.wait(running)
    assert np.array_equal(plain(), before)
