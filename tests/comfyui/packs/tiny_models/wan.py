"""A tiny random Wan 2.1."""

from __future__ import annotations

import io
from typing import Any

import comfy.ops
import comfy.sd
import comfy.text_encoders.wan
import sentencepiece
import torch
from comfy.ldm.wan.model import WanModel
from comfy.ldm.wan.vae import WanVAE
from comfy.supported_models_base import ClipTarget

from .models import randomise
from .video import load, text_config, text_encoder

# ComfyUI takes Wan's number of heads from dim / 128 and its text width as 4096, whatever the file says.
WAN = {"dim": 128, "ffn_dim": 128, "num_heads": 1, "num_layers": 2}
WAN_TEXT_WIDTH = 4096
WORDS = "a red blue ball cube rolling over green grass under the sky authentic real smooth motion blurry and slow"


def tiny_wan(seed: int = 0) -> Any:
    return load(WanModel(**WAN, operations=comfy.ops.disable_weight_init), seed)


def spiece_model() -> torch.Tensor:
    """A sentencepiece tokenizer of a few words with umt5's special tokens, as a checkpoint carries it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS] * 20),
        model_writer=model,
        model_type="word",
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return torch.frombuffer(bytearray(model.getvalue()), dtype=torch.uint8)


def wan_clip(seed: int = 1) -> comfy.sd.CLIP:
    target = ClipTarget(comfy.text_encoders.wan.WanT5Tokenizer, comfy.text_encoders.wan.te())
    config = text_config(WAN_TEXT_WIDTH, 256, "umt5")
    return text_encoder(target, "umt5xxl", config, seed, spiece_model=spiece_model())


def wan_vae(seed: int = 2) -> comfy.sd.VAE:
    shape = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temperal_downsample": [False, True, True]}
    network = WanVAE(dim=8, z_dim=16, **shape)
    randomise(network, seed)
    return comfy.sd.VAE(sd=network.state_dict())


FAMILY = (tiny_wan, wan_clip, wan_vae)
EMPTY_LATENT, FRAMES = ("EmptyHunyuanLatentVideo", "length"), 17
