"""What the tiny models of latent videos share: ComfyUI's real loaders and real code at a fraction of the width."""

from __future__ import annotations

from typing import Any

import comfy.sd
import torch
from comfy.supported_models_base import ClipTarget

from .models import randomise


def load(network: torch.nn.Module, seed: int, metadata: dict[str, str] | None = None) -> Any:
    """A MODEL as ComfyUI loads it from the network's state dict."""
    randomise(network, seed)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for name in state:
        if name.endswith(("cross_attn.o.weight", "attn2.to_out.0.weight")):
            state[name] *= 8  # a prompt is some of hundreds of tokens: untrained attention hardly sees it
    return comfy.sd.load_diffusion_model_state_dict(state, metadata=metadata)


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
