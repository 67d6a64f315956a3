"""Text encoder, VAE and image encoder of a video checkpoint, or of an image checkpoint in their place.

ComfyUI's loaders leave random numbers where a tensor is missing, with no more than a line in the log. So the parts are
looked at first: OpenCLIP's ViT-H/14 (text and image) and Stable Diffusion's autoencoder, as all published files have.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import comfy.clip_vision
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL

from ..comfy_types import Clip, ClipVision, Vae
from .contents import LOADER, VISION, Contents, check_finite, not_whole

Tensors = dict[str, torch.Tensor]

# The text encoder's 24th layer is not used: ComfyUI takes the output of the one before.
_TEXT_LAYERS, _VISION_LAYERS = 23, 32
_TEXT = {"token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias"}
_VISION = {"class_embedding", "positional_embedding", "conv1.weight", "ln_pre.weight", "ln_pre.bias"}
_LAYER = ("ln_1", "ln_2", "attn.in_proj_", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
_AUTOENCODER = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
}


class Encoders(NamedTuple):
    """None for what a file does not have."""

    clip: Clip | None
    vae: Vae | None
    clip_vision: ClipVision | None


def check_encoders(contents: Contents, text: Tensors, autoencoder: Tensors, vision: Tensors) -> None:
    """Raise ValueError if tensors of a video checkpoint's own are missing, or not finite."""
    _check(contents, "text encoder", text, _TEXT | _layers(_TEXT_LAYERS))
    _check(contents, "VAE", autoencoder, _autoencoder())
    _check(contents, "image encoder", vision, {f"{VISION}{key}" for key in _VISION | _layers(_VISION_LAYERS)})


def own_encoders(text: Tensors, autoencoder: Tensors, vision: Tensors) -> Encoders:
    """Those of a video checkpoint."""
    return Encoders(
        comfy.sd.load_text_encoder_state_dicts([text], _embeddings()) if text else None,
        comfy.sd.VAE(sd=autoencoder) if autoencoder else None,
        comfy.clip_vision.load_clipvision_from_sd(vision, VISION, True) if vision else None,
    )


def encoders_of(path: Path) -> tuple[Clip | None, Vae | None]:
    """CLIP and VAE of a Stable Diffusion checkpoint.

    Raises:
        ValueError: it is none, or damaged.
    """
    if path.suffix.lower() not in (".safetensors", ".sft"):
        raise ValueError(f"{LOADER}: encoders must be a .safetensors checkpoint, and {path.name} is none.")
    state = comfy.utils.load_torch_file(str(path), safe_load=True)
    check_finite(path, {key: state[key] for key in state if not key.startswith("model.diffusion_model.")})
    found = comfy.sd.load_state_dict_guess_config(state, output_model=False, embedding_directory=_embeddings())
    if found is None or found[1] is None:
        raise ValueError(
            f"{LOADER}: {path.name} is no checkpoint with a text encoder and a VAE. Choose a Stable Diffusion "
            "checkpoint."
        )
    return found[1], found[2]


def _check(contents: Contents, name: str, found: Tensors, wanted: set[str]) -> None:
    if found and (missing := wanted - found.keys()):
        raise not_whole(contents.path, name, missing, len(wanted))
    check_finite(contents.path, found)


def _layers(number: int) -> set[str]:
    ends = [
        f"{part}{end}" for part in _LAYER for end in (("weight", "bias") if part[-1] == "_" else (".weight", ".bias"))
    ]
    return {f"transformer.resblocks.{layer}.{end}" for layer in range(number) for end in ends}


def _autoencoder() -> set[str]:
    with torch.device("meta"):
        return set(AutoencoderKL(ddconfig=_AUTOENCODER, embed_dim=4).state_dict())


def _embeddings() -> list[str]:
    """Where the text encoder looks for `embedding:` words."""
    return folder_paths.get_folder_paths("embeddings")
