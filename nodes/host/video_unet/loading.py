"""A video checkpoint as ComfyUI's MODEL, CLIP, VAE and CLIP_VISION."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch

from ..comfy_types import Clip, ClipVision, Patcher, Vae
from ..core_functions import newer
from .checks import checked
from .contents import Contents, check_finite, read_contents, resampler_config
from .encoders import check_encoders, encoders_of, own_encoders
from .model import VideoConfig, VideoModel


class Loaded(NamedTuple):
    """What a loader node puts out; None for what the file does not have. `lines` tell what it was."""

    model: Patcher
    clip: Clip | None
    vae: Vae | None
    clip_vision: ClipVision | None
    lines: list[str]


def load_video_checkpoint(path: Path, variant: str = "auto", encoders: Path | None = None) -> Loaded:
    """Load a video checkpoint.

    Args:
        path: the .safetensors file. variant: "auto", or one of DynamiCrafter's.
        encoders: a Stable Diffusion checkpoint to take text encoder and VAE from, in place of the file's own.

    Raises:
        FileNotFoundError, ValueError: the file cannot be run; it says what it is instead. Nothing stays in memory.
    """
    contents = read_contents(path, variant)
    state = comfy.utils.load_torch_file(str(path), safe_load=True)
    parts = (contents.text, contents.vae) if encoders is None else ({}, {})
    own = [_take(state, part) for part in (*parts, contents.vision)]
    check_encoders(contents, *own)
    model = make_model(contents, state)
    lines = [f"{contents.variant.title}, trained on {_size(contents)} and 16 frames"]
    clip, vae, clip_vision = own_encoders(*own)
    if encoders is not None:
        clip, vae = encoders_of(encoders)
    for part, name in ((clip, "text encoder"), (vae, "VAE")):
        if part is None:
            lines.append(
                f"The file has no {name}: choose {contents.family.image_text} under encoders, or use another loader."
            )
    if contents.variant.image and clip_vision is None:
        lines.append("The file has no image encoder: use Load CLIP Vision with CLIP-ViT-H-14-laion2B-s32B-b79K.")
    return Loaded(model, clip, vae, clip_vision, lines)


def make_model(contents: Contents, state: dict[str, torch.Tensor], disable_dynamic: bool = False) -> Patcher:
    """The MODEL of a checkpoint whose tensors are in `state`, which are taken out of it."""
    weights = _take(state, contents.unet)
    resampler = _take(state, contents.resampler)
    check_finite(contents.path, weights)
    check_finite(contents.path, resampler)
    config = VideoConfig(
        contents.variant,
        contents.unet_config(),
        resampler_config({key: tuple(tensor.shape) for key, tensor in resampler.items()}),
    )
    management = comfy.model_management
    device = management.get_torch_device()
    dtype = management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights),
        supported_dtypes=list(config.supported_inference_dtypes),
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    model = VideoModel(config)
    # ComfyUI 0.12 and newer may stream weights with a class of its own, whose layers take the file's tensors.
    kind = comfy.model_patcher.ModelPatcher
    if not disable_dynamic:
        kind = newer(comfy.model_patcher, "CoreModelPatcher", kind)
    patcher = kind(model, load_device=device, offload_device=management.unet_offload_device())
    assign = {"assign": True} if getattr(patcher, "is_dynamic", bool)() else {}
    for module, tensors in ((model.diffusion_model, weights), (model.image_proj_model, resampler)):
        if module is not None:
            module.load_state_dict(tensors, strict=True, **assign)
    # How ComfyUI makes the model anew for hooks and for several devices.
    patcher.cached_patcher_init = (_again, (contents,))
    return checked(patcher, contents.variant)


def _again(contents: Contents, disable_dynamic: bool = False) -> Patcher:
    state = comfy.utils.load_torch_file(str(contents.path), safe_load=True)
    return make_model(contents, state, disable_dynamic)


def _take(state: dict[str, torch.Tensor], keys: dict[str, str]) -> dict[str, torch.Tensor]:
    return {ours: state.pop(theirs) for ours, theirs in keys.items()}


def _size(contents: Contents) -> str:
    width, height = contents.variant.size
    return f"{width} x {height}"
