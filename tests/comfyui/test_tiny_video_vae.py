"""Tiny video autoencoders (TAEHV), which ComfyUI runs frame by frame with their memory cut off from the gradient."""

from __future__ import annotations

import importlib
from contextlib import nullcontext

import pytest
import torch

from tests.comfyui.test_self_check import check, verdict
from tests.comfyui.tiny_family import TinyFamily


@pytest.fixture(scope="module")
def video(tiny):
    import comfy.sd
    from comfy.taesd.taehv import TAEHV

    video = TinyFamily(tiny.comfy, "wan", tiny.flow, tiny.discriminator)
    models = importlib.import_module(f"{tiny.comfy.node('TinyVideoModel').__module__}.models")
    with torch.inference_mode():
        network = TAEHV(latent_channels=16)
        models.randomise(network, 2, gain=1.4)
        video.vae = comfy.sd.VAE(sd=network.state_dict())
    for module in list(video.vae.first_stage_model.modules()):
        for name, child in list(module._modules.items()):
            if isinstance(child, torch.nn.ReLU):  # its kinks are all that differences would show
                setattr(module, name, torch.nn.SiLU())
    return video


@pytest.fixture
def cut_off(video, monkeypatch):
    """Without what connects the memory."""
    monkeypatch.setattr(video.comfy.module("nodes.host.decode"), "attached", nullcontext)


def worst_slope(video, frames=(6, 9, 16)):
    """Greatest disagreement of autograd and differences along random directions: in each latent alone, and in all."""
    decoder, generator = video.decoder(), torch.Generator().manual_seed(0)
    with torch.inference_mode(False):
        x0 = torch.randn(5, 16, 8, 8, generator=generator)
        weights = torch.randn(len(frames), 3, 64, 64, generator=generator) / 64
    with video.comfy.module("nodes.host.gradients").differentiable([video.vae.first_stage_model]):

        def weighted(x):
            return (decoder(x, list(frames)) * weights).sum()

        leaf = x0.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(weighted(leaf), leaf)
        errors = []
        for latents in ([0], [1], [2], [3], [4], [0, 1, 2, 3, 4]):
            line, step = torch.zeros_like(x0), 3e-3
            line[latents] = torch.randn(len(latents), 16, 8, 8, generator=generator)
            with torch.no_grad():
                near, far = (weighted(x0 + s * step * line) - weighted(x0 - s * step * line) for s in (1, 2))
            differences = float((8 * near - far) / (12 * step))
            errors.append(abs(float((gradient * line).sum()) - differences) / float(gradient.norm()))
    return max(errors)


def test_gradients_reach_earlier_latents(video):
    assert worst_slope(video) < 0.01


def test_and_would_not_without_their_memory(video, cut_off):
    assert worst_slope(video) > 0.5


@pytest.mark.exhaustive
def test_the_self_check_agrees(video):
    assert verdict(check(video)) == "agrees"


@pytest.mark.slow
def test_and_names_the_decoder_whose_memory_is_cut_off(video, cut_off):
    assert verdict(check(video)) == "disagrees: decoder"


def test_the_pictures_are_the_same(video):
    decoder = video.decoder()
    with torch.inference_mode(False):
        x0 = torch.randn(3, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        shown = video.vae.decode(video.model.model.process_latent_out(decoder.as_model(x0)))[0]
    with video.comfy.module("nodes.host.gradients").differentiable([video.vae.first_stage_model]):
        mine = decoder(x0.requires_grad_(), list(range(9)))
    torch.testing.assert_close(mine.detach().movedim(1, -1).clamp(0, 1), shown.clamp(0, 1), rtol=0, atol=1e-5)


def test_a_vae_that_makes_other_frames_than_it_says(video):
    """ComfyUI says 4 frames a latent of every TAEHV; LTX-2's makes 8."""
    decoder = video.decoder()
    decoder.factor = 8
    with torch.inference_mode(), pytest.raises(ValueError, match=r"made 9 frames of 3 latents.*17.*own video VAE"):
        decoder(torch.randn(3, 16, 8, 8), [0, 9])
