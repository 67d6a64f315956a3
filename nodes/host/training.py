"""What the training nodes need of ComfyUI: folders that may be read, progress, where things are kept."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import comfy.utils
import folder_paths
import torch
from PIL import Image
from torch import Tensor

from .folders import FOLDER
from .gradients import check_interrupt

KEPT = Path("motionprompt")
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))}


def readable_folder(name: str, what: str) -> Path:
    """The folder of clips that an artist named: inside input or output, or a full path inside those or models.

    ComfyUI may be shared, so nothing else can be read through a node.

    Raises:
        ValueError: it is elsewhere.
        FileNotFoundError: it does not exist.
    """
    text = name.strip().strip('"')
    roots = [folder_paths.get_input_directory(), folder_paths.get_output_directory(), folder_paths.models_dir]
    paths = [text] if os.path.isabs(text) else [os.path.join(root, text) for root in roots[:2]]
    allowed = [path for path in map(os.path.abspath, paths) if any(_inside(path, root) for root in roots)]
    if not allowed:
        raise ValueError(
            f"{what}: {text!r} is outside of ComfyUI's input, output and models folders. Put the clips into "
            f"{roots[0]} and give the folder's name there."
        )
    for path in allowed:
        if os.path.isdir(path):
            return Path(path)
    raise FileNotFoundError(
        f"{what}: there is no folder {text!r} in ComfyUI's input or output folder (looked for {', '.join(allowed)}). "
        "Put the clips there."
    )


def _inside(path: str, root: str) -> bool:
    root = os.path.abspath(root)
    try:
        return os.path.commonpath((path, root)) == root
    except ValueError:  # another drive
        return False


def flow_cache() -> Path:
    return _kept("flow_cache")


def capture_folder(name: str) -> Path:
    """Where estimates are kept under a name.

    Raises:
        ValueError: the name is no plain one.
    """
    return _kept("captured") / plain_name(name, "capture")


def training_state(name: str) -> Path:
    return _kept("training") / f"{name}.pt"


def _kept(name: str) -> Path:
    return Path(folder_paths.get_output_directory()) / KEPT / name


def plain_name(name: str, what: str) -> str:
    """`name` if it can be a file's name in a folder of ours, on every system.

    Raises:
        ValueError: it is empty, would leave the folder, or is no name everywhere (control characters, Windows' devices,
            more than 200 bytes).
    """
    text = name.strip()
    characters = any(c in '/\\:*?"<>|' or unicodedata.category(c)[0] == "C" for c in text)
    device = text.split(".")[0].rstrip().upper() in _DEVICES
    if not text or text[0] == "." or text[-1] == "." or characters or device or len(text.encode()) > 200:
        raise ValueError(
            f"{what}: {text[:80]!r} is no name for a file. Use letters, digits, spaces, - and _, without a folder, at "
            "most 200 bytes."
        )
    return text


def new_model_file(name: str, overwrite: bool) -> Path:
    """Path in models/motionprompt for a discriminator; a number is added to a name that is taken there or in
    another of the folders that ComfyUI looks in."""
    folder = Path(folder_paths.models_dir) / FOLDER
    stem = plain_name(name, "filename").removesuffix(".safetensors")
    path = folder / f"{stem}.safetensors"
    number = 2
    while not _is_free(path, overwrite):
        path = folder / f"{stem}_{number}.safetensors"
        number += 1
    return path


def _is_free(path: Path, overwrite: bool) -> bool:
    """Whether this name will load what is saved there: no file of another folder (extra_model_paths.yaml) has it."""
    found = folder_paths.get_full_path(FOLDER, path.name)
    taken = found is not None and Path(found).resolve() != path.resolve()
    return not taken and (overwrite or not path.exists())


class Progress:
    """A node's progress bar with a picture under it; stops where the user pressed Cancel."""

    def __init__(self, total: int, status: Callable[[str], None] | None = None):
        self.bar = comfy.utils.ProgressBar(total)
        self.total, self.status = total, status

    def show(self, done: int, text: str = "", picture: Tensor | None = None) -> None:
        """`picture` (H, W, 3) in [0, 1].

        Raises:
            InterruptProcessingException: the user pressed Cancel.
        """
        check_interrupt()
        preview: tuple[str, Image.Image, int] | None = None
        if picture is not None:
            image = Image.fromarray((picture * 255).round().to(torch.uint8).numpy())
            preview = ("JPEG", image, max(image.size))
        self.bar.update_absolute(done, self.total, preview)
        if text and self.status is not None:
            self.status(text)
