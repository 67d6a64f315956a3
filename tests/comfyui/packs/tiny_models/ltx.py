"""A tiny random LTX-Video."""

from __future__ import annotations

import json
from typing import Any

import comfy.ops
import comfy.sd
import comfy.text_encoders.lt
from comfy.ldm.lightricks.model import LTXVModel
from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE
from comfy.supported_models_base import ClipTarget

from .models import randomise
from .video import load, text_config, text_encoder

# LTX-Video's heads are 32, whatever the width.
LTXV = {"num_attention_heads": 32, "attention_head_dim": 4, "cross_attention_dim": 128, "num_layers": 2}
LTXV_TEXT_WIDTH = 64
LTXV_VAE = {
    "dims": 3,
    "latent_channels": 128,
    "blocks": [["res_x", 1], ["compress_all", 1], ["compress_all", 1], ["compress_all", 1], ["res_x", 1]],
    "norm_layer": "pixel_norm",
    "patch_size": 4,
    "latent_log_var": "uniform",
    "causal_decoder": False,
    "timestep_conditioning": True,
}


def tiny_ltxv(seed: int = 0) -> Any:
    shape = {**LTXV, "caption_channels": LTXV_TEXT_WIDTH}
    network = LTXVModel(in_channels=128, **shape, operations=comfy.ops.disable_weight_init)
    return load(network, seed, {"config": json.dumps({"transformer": {"caption_channels": LTXV_TEXT_WIDTH}})})


def ltxv_clip(seed: int = 1) -> comfy.sd.CLIP:
    target = ClipTarget(comfy.text_encoders.lt.LTXVT5Tokenizer, comfy.text_encoders.lt.ltxv_te())
    return text_encoder(target, "t5xxl", text_config(LTXV_TEXT_WIDTH, 32128, "t5"), seed)


def ltxv_vae(seed: int = 2) -> comfy.sd.VAE:
    network = VideoVAE(config=LTXV_VAE)
    randomise(network, seed)
    state = network.state_dict()
    state["per_channel_statistics.std-of-means"].fill_(1.0)
    state["decoder.timestep_scale_multiplier"].fill_(1000.0)
    return comfy.sd.VAE(sd=state, metadata={"config": json.dumps({"vae": LTXV_VAE})})


FAMILY = (tiny_ltxv, ltxv_clip, ltxv_vae)
EMPTY_LATENT, FRAMES = ("EmptyLTXVLatentVideo", "length"), 17
