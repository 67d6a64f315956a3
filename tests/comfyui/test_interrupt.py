"""Cancel stops a guided run wherever it is, within one evaluation, and leaves nothing behind."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from scripts.comfy_server import ComfyInterrupted


@contextmanager
def pressing_cancel(tiny, module, call):
    """Presses Cancel when `module` runs for the `call`-th time; yields a list of the UNet evaluations after that."""
    import comfy.model_management as management

    after: list[int] = []
    calls = [0]
    pressed = [False]
    unet = tiny.model.model.diffusion_model

    def press(*_):
        calls[0] += 1
        if calls[0] == call:
            pressed[0] = True
            management.interrupt_current_processing(True)

    def count(*_):
        if pressed[0]:
            after.append(1)

    hooks = [unet.register_forward_hook(count), module.register_forward_pre_hook(press)]
    try:
        yield after
    finally:
        for hook in hooks:
            hook.remove()
        management.interrupt_current_processing(False)


PLACES = {
    "text encoding": lambda tiny: (tiny.clip.cond_stage_model.clip_l.transformer, 1),
    "the UNet's forward pass": lambda tiny: (tiny.model.model.diffusion_model.middle_block[1], 1),
    "a later iteration": lambda tiny: (tiny.model.model.diffusion_model.middle_block[1], 2),
    "decoding": lambda tiny: (tiny.vae.first_stage_model.decoder, 1),
    "the flow model": lambda tiny: (tiny.flow.module, 1),
    "the discriminator": lambda tiny: (tiny.discriminator.module, 2),
}


@pytest.mark.parametrize("place", PLACES)
def test_cancel_stops_within_one_evaluation_and_leaves_nothing(tiny, place):
    import comfy.model_management as management

    before = tiny.stock()
    report = tiny.applied()[1]
    with pressing_cancel(tiny, *PLACES[place](tiny)) as evaluations_after:
        with pytest.raises(management.InterruptProcessingException):
            model, report = tiny.applied(iterations=2)
            tiny.stock(model=model, positive=tiny.learnable)
    assert len(evaluations_after) <= 1
    assert report.state == "interrupted"
    assert torch.equal(tiny.stock(), before)


def test_cancel_during_the_backward_pass(tiny):
    import comfy.model_management as management

    before = tiny.stock()
    pressed = []

    def press(gradient):
        if not pressed:
            pressed.append(True)
            management.interrupt_current_processing(True)
        return gradient

    def watch(module, inputs, output):
        if output.requires_grad and not pressed:
            output.register_hook(press)

    hook = tiny.model.model.diffusion_model.middle_block[1].register_forward_hook(watch)
    try:
        with pytest.raises(management.InterruptProcessingException):
            tiny.guided(iterations=3)
        assert pressed
    finally:
        hook.remove()
        management.interrupt_current_processing(False)
    assert torch.equal(tiny.stock(), before)


def test_a_failed_run_leaves_nothing(tiny):
    before = tiny.stock()

    def fail(*_):
        raise RuntimeError("out of luck")

    for module in (tiny.flow.module, tiny.vae.first_stage_model.decoder, tiny.clip.cond_stage_model.clip_l.transformer):
        model, report = tiny.applied(checkpointing="on")
        hook = module.register_forward_pre_hook(fail)
        try:
            with pytest.raises(RuntimeError, match="out of luck"):
                tiny.stock(model=model, positive=tiny.learnable)
        finally:
            hook.remove()
        assert report.state == "failed"
        assert "out of luck" in report.summary()
        assert torch.equal(tiny.stock(), before)


def demo_graph(guided: bool) -> dict[str, Any]:
    """A prompt in API format: four frames of the demo model, by MotionPrompt KSampler or by the stock one."""
    inputs: dict[str, Any] = {
        "model": ["demo", 0],
        "seed": 5,
        "steps": 8,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "latent_image": ["latent", 0],
        "denoise": 1.0,
    }
    nodes: dict[str, Any] = {
        "demo": ("MotionPromptLoadDemoVideoModel", {}),
        "positive": ("CLIPTextEncode", {"clip": ["demo", 1], "text": "a red star moving left on grass"}),
        "negative": ("CLIPTextEncode", {"clip": ["demo", 1], "text": ""}),
        "latent": ("EmptyLatentImage", {"width": 128, "height": 128, "batch_size": 4}),
        "sampler": ("KSampler", inputs),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["demo", 2]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "cancel/frame"}),
    }
    if guided:
        learnable = {"token_count": 1, "init_words": "smooth", "placement": "end"}
        nodes["positive"] = ("MotionPromptConditioning", {**nodes["positive"][1], **learnable})
        nodes["flow"] = ("MotionPromptLoadOpticalFlow", {"name": "gradient", "download": False})
        inputs |= {
            "vae": ["demo", 2],
            "flow_model": ["flow", 0],
            "strength": 1.0,
            "iterations": 10,
            "window_start": 0.0,
            "window_end": 1.0,
            "learning_rate": 0.01,
            "lambda_disc": 0.0,
            "lambda_tv": 0.1,
            "lambda_reg": 0.1,
        }
        nodes["sampler"] = ("MotionPromptKSampler", inputs)
    return {name: {"class_type": kind, "inputs": values} for name, (kind, values) in nodes.items()}


def test_the_cancel_button_of_a_live_server(comfy_server):
    def stock_frames() -> list[bytes]:
        comfy_server.free()  # nothing comes from the cache
        return [path.read_bytes() for path in comfy_server.queue(demo_graph(guided=False)).files("save")]

    before = stock_frames()
    sampling = threading.Event()

    def watch(name: str, data: dict[str, Any]) -> None:
        if name == "progress" and data.get("node") == "sampler":
            sampling.set()

    with comfy_server.watch(on_event=watch):
        running = comfy_server.submit(demo_graph(guided=True))
        assert sampling.wait(120)
        comfy_server.interrupt()
        with pytest.raises(ComfyInterrupted, match="MotionPromptKSampler"):
            comfy_server.wait(running)
    assert stock_frames() == before
