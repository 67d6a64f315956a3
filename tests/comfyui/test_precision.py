"""Half-precision weights, and where tensors live."""

from __future__ import annotations

import sys

import pytest
import torch

DTYPES = {
    "fp16": (torch.float16, None),
    "fp16 weights computed in fp32": (torch.float16, torch.float32),
    "bf16": (torch.bfloat16, None),
    "bf16 weights computed in fp32": (torch.bfloat16, torch.float32),
}


def model_of(tiny, dtype, manual_cast):
    models = sys.modules[f"{tiny.comfy.node('TinyVideoModel').__module__}.models"]
    with torch.inference_mode():
        return models.tiny_model(0, dtype, manual_cast)


@pytest.mark.parametrize("name", DTYPES)
def test_the_gradient_is_that_of_fp32(tiny, name):
    options = {"stop": 0.25, "lambda_reg": 0.0}
    (exact,) = tiny.gradients(**options)
    (found,) = tiny.gradients(model=model_of(tiny, *DTYPES[name]), **options)
    assert found.dtype == torch.float32
    assert torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0) >= 0.99


@pytest.mark.parametrize("name", DTYPES)
def test_a_guided_run_comes_through_finite(tiny, name):
    latents, report = tiny.guided(model=model_of(tiny, *DTYPES[name]))
    assert report.guided == [0, 1]
    assert torch.isfinite(latents).all()


def test_half_precision_text_encoders_have_fp32_tokens(tiny):
    models = sys.modules[f"{tiny.comfy.node('TinyVideoModel').__module__}.models"]
    with torch.inference_mode():
        clip = models.tiny_clip(1, torch.float16)
    learnable = tiny.prompt(clip=clip)
    assert learnable[0][1]["motionprompt"].initial["l"].dtype == torch.float32
    _, report = tiny.guided(positive=learnable, negative=tiny.encode("blurry", clip=clip))
    assert report.guided == [0, 1]


def test_a_tiny_autoencoder_decodes_too(tiny):
    models = sys.modules[f"{tiny.comfy.node('TinyVideoModel').__module__}.models"]
    with torch.inference_mode():
        vae = models.tiny_taesd()
    _, report = tiny.guided(vae=vae)
    assert report.guided == [0, 1]


def test_frames_for_the_loss_are_those_of_vae_decode_without_the_clamp(tiny):
    decode = tiny.comfy.module("nodes.host.decode").FrameDecoder(tiny.vae, tiny.model.model)
    with torch.inference_mode():
        latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        frames = decode(tiny.model.model.process_latent_in(latents))
        shown = tiny.vae.decode(latents).movedim(-1, 1)
    assert (frames.min() < 0) or (frames.max() > 1)
    torch.testing.assert_close(frames.clamp(0, 1), shown, rtol=0, atol=1e-5)


def test_no_file_names_a_device(repo_root):
    sources = [*repo_root.glob("nodes/**/*.py"), *repo_root.glob("motionprompt_core/*.py")]
    assert sources
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert '"cuda' not in text and ".cuda(" not in text, path
