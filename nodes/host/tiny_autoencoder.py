"""The tiny autoencoder of a video model, if it lies where ComfyUI looks for those: it decodes in a fraction of the time
and memory, and what it loses cancels, as only a difference passes it."""

from __future__ import annotations

from pathlib import Path

import comfy.sd
import comfy.utils
import folder_paths

from .comfy_types import BaseModel, Vae
from .families import family_of

FOLDER = "vae_approx"


def tiny_autoencoder_file(model: BaseModel) -> str | None:
    """Name of the file in models/vae_approx for a video model's latents; only ComfyUI's own names, as it guesses the
    latents' scale by them, and only safetensors."""
    family = family_of(model)
    begins = family.tiny_autoencoder(model) if family.time else None
    if not begins:
        return None
    names = folder_paths.get_filename_list(FOLDER)
    found = [name for name in names if name.startswith(begins) and name.endswith(".safetensors")]
    return next((name for name in found if folder_paths.get_full_path(FOLDER, name) is not None), None)


def load_tiny_autoencoder(name: str) -> Vae:
    """The VAE in a file of models/vae_approx.

    Raises:
        ValueError: it holds none.
    """
    path = folder_paths.get_full_path_or_raise(FOLDER, name)
    state, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    vae = comfy.sd.VAE(sd=state, metadata=metadata)
    if getattr(vae, "first_stage_model", None) is None:
        raise ValueError(
            f"Steady Motion: models/vae_approx/{Path(name).name} holds no autoencoder that this ComfyUI knows. "
            "Download it again, or take it out of the folder: then the model's own VAE is used."
        )
    return vae
