"""Tiny video autoencoders frame by frame: what ComfyUI makes of the whole video, in the memory of a few frames."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

# Channels of the latents: Wan 2.1, HunyuanVideo 1.5, Wan 2.2 5B, LTX-2, MiniMax H3.
CHANNELS = [16, 32, 48, 128, 24]


@pytest.fixture(params=CHANNELS)
def decoder(request, tiny):
    """A decoder of random latents with so many channels, and latents of a video."""
    channels, comfy = request.param, tiny.comfy
    hosts = sys.modules[comfy.node("TinyHostModel").__module__]
    vae = hosts.tiny_tae(channels)
    if channels == 24 and not getattr(vae.first_stage_model, "is_h3", False):
        pytest.skip("this ComfyUI has no tiny autoencoder of MiniMax H3")
    if not comfy.module("nodes.host.checks").encodes(vae):
        pytest.skip("this tiny autoencoder only decodes in this ComfyUI")
    model: Any = SimpleNamespace(process_latent_out=lambda x: x, process_latent_in=lambda x: x)
    decoder = comfy.module("nodes.host.chunk_decoder").video_decoder(vae, model, 0, 0, 0)
    return decoder, torch.randn(7, channels, 6, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def stream(decoder, tiny):
    return tiny.comfy.module("nodes.host.tiny_stream").TinyStream.of(decoder[0])


def test_frames_and_latents_are_those_of_the_whole_video(decoder, stream):
    decoder, x0 = decoder
    with torch.inference_mode():
        whole = decoder.pictures(x0)
        frames = torch.stack(list(stream.frames(x0)))
        torch.testing.assert_close(frames, whole, rtol=0, atol=1e-6)
        latents = torch.stack(list(stream.latents(whole, len(x0))))
        torch.testing.assert_close(latents, decoder.latents(whole), rtol=0, atol=1e-5)
    assert whole.std() > 0.01 and latents.std() > 0.01


def test_the_memory_that_is_told_is_what_was_counted(stream, repo_root):
    rows = json.loads((repo_root / "docs" / "cost" / "estimate.json").read_text(encoding="utf-8"))
    patch = stream.network.patch_size
    stream.pictures.vae.vae_dtype = torch.float16
    counted = [row for row in rows if row["autoencoder"] == "TAEHV" and patch == (4 if "LTX" in row["model"] else 1)]
    assert counted or patch == 2
    for row in counted:
        width, height = map(int, row["size"].split(" of ")[1].split(" x "))
        assert 0.95 < stream.memory(height, width) / 2**30 / row["correction_gib"] < 1.2


def test_other_numbers_of_latents_than_the_network_has_are_refused(decoder, stream):
    decoder, x0 = decoder
    if not stream.h3:
        decoder.factor += 1
    with pytest.raises(ValueError, match=r"made \d+ frames of 6 latents.*own video VAE"):
        next(stream.frames(x0[:6]))
