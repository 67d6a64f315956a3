"""Where weights are: ComfyUI's models/motionprompt (and extra_model_paths.yaml), and weights/ inside the pack."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from safetensors import SafetensorError, safe_open

from ...motionprompt_core.discriminator.model import FORMAT

FOLDER = "motionprompt"
PACK_WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
NOTHING_TO_LOAD = "(none found: put one into models/checkpoints)"
NOTHING = "(none found: put one into models/motionprompt)"


def register() -> None:
    """Tell ComfyUI about the folders; a user's own come first."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    folder_paths.add_model_folder_path(FOLDER, str(PACK_WEIGHTS))
    # A new folder name would list every file in it, READMEs included.
    folder_paths.folder_names_and_paths[FOLDER][1].add(".safetensors")


def weight_files() -> list[str]:
    """Names of the weights of this pack."""
    return _files(FOLDER)


def _files(folder: str) -> list[str]:
    """Their names; not those that a menu of the interface (before frontend 1.40) would run as HTML."""
    return [name for name in folder_paths.get_filename_list(folder) if "<" not in name]


def discriminator_files() -> list[str]:
    """The files that may be flow discriminators; other weights of this pack, told by their metadata, are left out."""
    return [name for name in weight_files() if _may_be_discriminator(name)] or [NOTHING]


def checkpoint_files() -> list[str]:
    """Checkpoints of image models, which may lend their text encoder and VAE."""
    return _files("checkpoints")


def video_files() -> list[str]:
    """The files that may be video checkpoints: they are kept with either kind."""
    names = [*checkpoint_files(), *_files("diffusion_models")]
    return list(dict.fromkeys(names)) or [NOTHING_TO_LOAD]


def find_video(name: str) -> Path:
    """Path of a checkpoint or diffusion model.

    Raises:
        FileNotFoundError: there is none of this name.
    """
    for folder in ("checkpoints", "diffusion_models"):
        path = folder_paths.get_full_path(folder, name)
        if path is not None:
            return Path(path)
    raise FileNotFoundError(
        f"There is no file {name!r} in models/checkpoints or models/diffusion_models. Put it there, then press R to "
        "refresh."
    )


def find(name: str) -> Path:
    """Path of a weight file.

    Raises:
        FileNotFoundError: there is none of this name.
    """
    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths(FOLDER))
        raise FileNotFoundError(
            f"There is no weight file {name!r} in {folders}. Put it there, then press R to refresh."
        )
    return Path(path)


def _may_be_discriminator(name: str) -> bool:
    try:
        with safe_open(str(find(name)), framework="pt") as file:
            return (file.metadata() or {}).get("format") in (FORMAT, None)
    except (SafetensorError, OSError, ValueError):
        return True  # damaged: shown, so that loading it can say what is wrong
