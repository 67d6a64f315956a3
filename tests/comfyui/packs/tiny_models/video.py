"""Tiny random Wan 2.1 and LTX-Video models: ComfyUI's real loaders and real code at a fraction of the width."""

from __future__ import annotations

import io
import json
from typing import Any

import comfy.ops
import comfy.sd
import comfy.text_encoders.lt
import comfy.text_encoders.wan
import sentencepiece
import torch
from comfy.ldm.lightricks.model import LTXVModel
from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE
from comfy.ldm.wan.model import WanModel
from comfy.ldm.wan.vae import WanVAE
from comfy.supported_models_base import ClipTarget

from .models import randomise

# ComfyUI takes Wan's number of heads from dim / 128 and its text width as 4096, whatever the file says.
WAN = {"dim": 128, "ffn_dim": 128, "num_heads": 1, "num_layers": 2}
WAN_TEXT_WIDTH = 4096
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
WORDS = "a red blue ball cube rolling over green grass under the sky authentic real smooth motion blurry and slow"


def load(network: torch.nn.Module, seed: int, metadata: dict[str, str] | None = None) -> Any:
    """A MODEL as ComfyUI loads it from the network's state dict."""
    randomise(network, seed)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for name in state:
        if name.endswith(("cross_attn.o.weight", "attn2.to_out.0.weight")):
            state[name] *= 8  # a prompt is some of hundreds of tokens: untrained attention hardly sees it
    return comfy.sd.load_diffusion_model_state_dict(state, metadata=metadata)


def tiny_wan(seed: int = 0) -> Any:
    return load(WanModel(**WAN, operations=comfy.ops.disable_weight_init), seed)


def tiny_ltxv(seed: int = 0) -> Any:
    shape = {**LTXV, "caption_channels": LTXV_TEXT_WIDTH}
    network = LTXVModel(in_channels=128, **shape, operations=comfy.ops.disable_weight_init)
    return load(network, seed, {"config": json.dumps({"transformer": {"caption_channels": LTXV_TEXT_WIDTH}})})


def text_config(width: int, vocabulary: int, model_type: str) -> dict[str, Any]:
    return {
        "d_model": width,
        "d_ff": 32,
        "d_kv": 16,
        "num_heads": 2,
        "num_layers": 2,
        "vocab_size": vocabulary,
        "dense_act_fn": "gelu_pytorch_tanh",
        "is_gated_act": True,
        "model_type": model_type,
    }


def text_encoder(target: ClipTarget, name: str, config: dict[str, Any], seed: int, **data: Any) -> comfy.sd.CLIP:
    options = {f"{name}_model_config": config, "dtype": torch.float32}
    clip = comfy.sd.CLIP(target, model_options=options, tokenizer_data=data)
    randomise(clip.cond_stage_model, seed)
    table = getattr(clip.cond_stage_model, name).transformer.shared.weight
    table.data.mul_(config["d_model"] ** 0.5)  # of size 1, as T5's are large
    return clip


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


def ltxv_clip(seed: int = 1) -> comfy.sd.CLIP:
    target = ClipTarget(comfy.text_encoders.lt.LTXVT5Tokenizer, comfy.text_encoders.lt.ltxv_te())
    return text_encoder(target, "t5xxl", text_config(LTXV_TEXT_WIDTH, 32128, "t5"), seed)


def wan_vae(seed: int = 2) -> comfy.sd.VAE:
    shape = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temperal_downsample": [False, True, True]}
    network = WanVAE(dim=8, z_dim=16, **shape)
    randomise(network, seed)
    return comfy.sd.VAE(sd=network.state_dict())


def ltxv_vae(seed: int = 2) -> comfy.sd.VAE:
    network = VideoVAE(config=LTXV_VAE)
    randomise(network, seed)
    state = network.state_dict()
    state["per_channel_statistics.std-of-means"].fill_(1.0)
    state["decoder.timestep_scale_multiplier"].fill_(1000.0)
    return comfy.sd.VAE(sd=state, metadata={"config": json.dumps({"vae": LTXV_VAE})})


FAMILIES = {"wan": (tiny_wan, wan_clip, wan_vae), "ltxv": (tiny_ltxv, ltxv_clip, ltxv_vae)}
