"""Tiny random models of the SD1.5 family, made in memory: ComfyUI's and AnimateDiff-Evolved's real code at 1/10
width."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.model_patcher import ModelPatcher
from comfy.supported_models_base import ClipTarget
from comfy.taesd.taesd import TAESD

WIDTH = 32
TEXT_WIDTH = 64
CLIP_CONFIG = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 4 * TEXT_WIDTH,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "projection_dim": TEXT_WIDTH,
    "eos_token_id": 49407,
}


UNET_CONFIG = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": WIDTH,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": (1, 2, 4, 4),
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": TEXT_WIDTH,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
}


def randomise(module: torch.nn.Module, seed: int, gain: float = 1.0) -> None:
    """Weights of ordinary size, the same on every machine."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(module.state_dict().items()):
            if not tensor.is_floating_point() or name.endswith("pe"):
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                tensor.copy_(noise * gain / tensor[0].numel() ** 0.5)
            elif name.endswith("weight"):
                tensor.copy_(1 + 0.1 * noise)
            else:
                tensor.copy_(0.1 * noise)


def tiny_model(
    seed: int = 0, dtype: torch.dtype = torch.float32, manual_cast: torch.dtype | None = None, operations: Any = None
) -> ModelPatcher:
    """A MODEL that AnimateDiff-Evolved takes for SD1.5.

    Args:
        dtype: of the weights. manual_cast: what ComfyUI computes in, if not in that. operations: the layers to use.
    """
    config = comfy.supported_models.SD15(dict(UNET_CONFIG))
    config.set_inference_dtype(dtype, manual_cast)
    config.custom_operations = operations
    model = config.get_model({}, device=torch.device("cpu"))
    randomise(model.diffusion_model, seed)
    device = comfy.model_management.get_torch_device()
    return ModelPatcher(model.eval(), load_device=device, offload_device=comfy.model_management.unet_offload_device())


class _TinyClip(comfy.sd1_clip.SDClipModel):
    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: dict[str, Any] | None = None):
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config=dict(CLIP_CONFIG),
            return_projected_pooled=False,
            model_options=model_options or {},
        )


class _TinyTextModel(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, **options: Any):
        super().__init__(clip_model=_TinyClip, **options)


def tiny_clip(seed: int = 1, dtype: torch.dtype = torch.float32) -> comfy.sd.CLIP:
    """A CLIP with the real tokenizer and a narrow text model."""
    target = ClipTarget(comfy.sd1_clip.SD1Tokenizer, _TinyTextModel)
    clip = comfy.sd.CLIP(target, model_options={"dtype": dtype})
    randomise(clip.cond_stage_model, seed)
    return clip


def tiny_vae(seed: int = 2) -> comfy.sd.VAE:
    """A VAE of SD1.5's kind, narrow and random."""
    shape = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 64,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    network = AutoencoderKL(ddconfig=shape, embed_dim=4)
    randomise(network, seed)
    return comfy.sd.VAE(sd=network.state_dict(), config={"params": {"ddconfig": shape, "embed_dim": 4}})


def tiny_taesd(seed: int = 2) -> comfy.sd.VAE:
    """A VAE of the TAESD kind, random."""
    network = TAESD()
    randomise(network, seed)
    with torch.no_grad():
        network.vae_scale.fill_(1.0)
        network.vae_shift.fill_(0.0)
    return comfy.sd.VAE(sd=network.state_dict())


def tiny_controlnet(seed: int = 5) -> Any:
    """A ControlNet for the tiny model, random."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops

    config = {key: UNET_CONFIG[key] for key in UNET_CONFIG if key not in ("out_channels", "transformer_depth_output")}
    network = comfy.cldm.cldm.ControlNet(
        **config, hint_channels=3, operations=comfy.ops.disable_weight_init, device="cpu", dtype=torch.float32
    )
    randomise(network, seed, gain=0.3)
    return comfy.controlnet.ControlNet(network.eval(), load_device=comfy.model_management.get_torch_device())


def tiny_motion_model(version: str, seed: int = 3) -> Any:
    """AnimateDiff-Evolved's motion model v1, v2 or v3 at the tiny model's width."""
    ade = _animatediff()
    modules, injection = ade.motion_module_ad, ade.model_injection
    frames = 32 if version in ("v2", "v3") else 24
    keys = {
        f"{side}_blocks.{i}.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.{a}"
        ".pos_encoder.pe": torch.zeros(1, frames, 320)
        for side in ("down", "up")
        for i in range(4)
        for a in range(2)
    }
    if version == "v2":
        keys["mid_block.motion_modules.0.temporal_transformer.norm.weight"] = torch.zeros(1280)
    state, info = modules.normalize_ad_state_dict(mm_state_dict=dict(keys), mm_name=f"tiny_{version}")
    narrow, wide = _narrow(modules.MotionModule), modules.MotionModule
    modules.MotionModule = narrow
    try:
        model = modules.AnimateDiffModel(mm_state_dict=state, mm_info=info)
    finally:
        modules.MotionModule = wide
    randomise(model, seed, gain=0.5)
    return injection.create_MotionModelPatcher(
        model=model.eval(),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def _narrow(motion_module: type) -> Any:
    return lambda channels, *args, **kwargs: motion_module(channels * WIDTH // 320, *args, **kwargs)


def _animatediff() -> Any:
    """AnimateDiff-Evolved's package as ComfyUI loaded it."""
    import nodes

    package = nodes.NODE_CLASS_MAPPINGS["ADE_UseEvolvedSampling"].__module__.rsplit(".", 1)[0]
    import importlib

    for name in ("motion_module_ad", "model_injection"):
        importlib.import_module(f"{package}.{name}")
    return importlib.import_module(package)


def pack_module(name: str) -> Any:
    """A module of the MotionPrompt pack as this ComfyUI loaded it."""
    import importlib

    import nodes

    root = nodes.NODE_CLASS_MAPPINGS["MotionPromptKSampler"].__module__.rsplit(".nodes.", 1)[0]
    return importlib.import_module(f"{root}.{name}")
