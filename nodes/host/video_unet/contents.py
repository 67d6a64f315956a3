"""What is in a video checkpoint, from its header alone: nothing is read of a file that cannot be run.

A checkpoint as published holds everything under prefixes (`model.diffusion_model.`, `first_stage_model.`, ...), each
perhaps after `_forward_module.`; others hold the network alone, with or without its prefix.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ....motionprompt_core.media.files import PICKLE_STARTS
from . import dynamicrafter, lavie, videocrafter
from .file_family import Shapes, VideoFamily
from .resampler import HEAD_WIDTH, Resampler
from .unet import VideoUNet

FAMILIES: tuple[VideoFamily, ...] = (lavie.FAMILY, videocrafter.FAMILY, dynamicrafter.FAMILY)
SUPPORTED = "LaVie, VideoCrafter2 and DynamiCrafter"
LOADER = "Load Video Checkpoint"

_WRAPPER = "_forward_module."
_UNET = "model.diffusion_model."
VISION = "embedder.model.visual."
_RESAMPLER = "image_proj_model."
_VAE, _TEXT = "first_stage_model.", "cond_stage_model.model."
_OTHERS = (_VAE, "cond_stage_model.", "embedder.", _RESAMPLER)

# First parts of the network's names: a file with the network alone may hold schedules beside it.
_STAGES = {"time_embed", "fps_embedding", "init_attn", "input_blocks", "middle_block", "output_blocks", "out"}

# Marks of what users may try, and what it is.
_FOREIGN = (
    ("time_stack", "Stable Video Diffusion, which ComfyUI's Image Only Checkpoint Loader loads"),
    ("motion_modules.", "an AnimateDiff motion model, for the loaders of AnimateDiff-Evolved"),
    ("temp_attentions.", "a video model in the layout of diffusers, of which the layer names differ"),
    ("transformer_blocks.0.attn1.to_q", "an image model without temporal layers"),
    ("encoder.down.", "an autoencoder (VAE)"),
    ("lora", "a LoRA, for Load LoRA"),
)


@dataclass
class Contents:
    """A checkpoint's parts: the file's key for each key of ours.

    Attributes:
        family: whose network it is. variant: see `Variant`; shapes: of the network's tensors.
        unet, resampler, vae, text, vision: the parts; empty if the file has them not.
    """

    path: Path
    family: VideoFamily
    variant: Any
    shapes: Shapes
    unet: dict[str, str]
    resampler: dict[str, str] = field(default_factory=dict)
    vae: dict[str, str] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    vision: dict[str, str] = field(default_factory=dict)

    def unet_config(self) -> dict[str, Any]:
        return self.family.unet_config(self.shapes)


def read_contents(path: Path, chosen: str = "auto") -> Contents:
    """Look at a checkpoint.

    Args:
        chosen: the variant, or "auto"; see `VideoFamily.variant`.

    Raises:
        FileNotFoundError, ValueError: naming what it is instead, or what is missing in it.
    """
    shapes, lowest_scale = _header(path)
    stripped = {key.replace(_WRAPPER, "", 1) if key.startswith(_WRAPPER) else key: key for key in shapes}
    unet = _part(stripped, _UNET)
    if not unet:
        unet = {key: own for key, own in stripped.items() if not key.startswith(_OTHERS)}
    vae = _part(stripped, _VAE)
    family = _family(path, {key: shapes[own] for key, own in unet.items()}, vae)
    named = {family.renamed(key): own for key, own in unet.items()}
    named.pop(None, None)
    network = {str(key): own for key, own in named.items() if str(key).split(".")[0] in _STAGES}
    contents = Contents(
        path,
        family,
        None,
        {key: shapes[own] for key, own in network.items()},
        network,
        _part(stripped, _RESAMPLER),
        vae,
        _part(stripped, _TEXT),
        {f"{VISION}{key}": own for key, own in _part(stripped, VISION).items()},
    )
    _check_network(contents)
    contents.variant = family.variant(contents.shapes, chosen, lowest_scale, path.name)
    if contents.variant.image:
        _check_resampler(contents, {key: shapes[own] for key, own in contents.resampler.items()})
    return contents


def _part(stripped: dict[str, str], prefix: str) -> dict[str, str]:
    return {key[len(prefix) :]: own for key, own in stripped.items() if key.startswith(prefix)}


def _header(path: Path) -> tuple[dict[str, tuple[int, ...]], float | None]:
    """Shapes of a file's tensors, and the lowest scale of its noise schedule if it says so."""
    if not path.is_file():
        raise FileNotFoundError(f"{LOADER}: there is no file {path}. Check the name, then press R to refresh.")
    with path.open("rb") as file:
        if file.read(4).startswith(PICKLE_STARTS):
            raise ValueError(
                f"{LOADER}: {path.name} is a pickle (.pt, .pth or .ckpt content), which can run code and is not "
                f"opened. Convert it once: python -m motionprompt_tools convert {path.name}"
            )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (not a dict)
            scales = [key for key in shapes if key.rpartition(".")[2] == "scale_arr"]
            lowest = float(file.get_tensor(scales[0]).flatten()[-1]) if scales else None
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{LOADER}: {path.name} cannot be read: it is truncated, damaged or no safetensors file ({error}). It has "
            f"{path.stat().st_size} bytes. Download it again."
        ) from error
    return shapes, lowest


def _family(path: Path, shapes: Shapes, vae: dict[str, str]) -> VideoFamily:
    for family in FAMILIES:
        if family.matches(shapes):
            other = family.refusal(shapes)
            if other is None and any("time_mix" in key or "temporal" in key for key in vae):
                other = "ToonCrafter, whose autoencoder is another one"
            if other is None:
                return family
            raise ValueError(f"{LOADER}: {path.name} is {other}. Supported are {SUPPORTED}.")
    what = next((what for mark, what in _FOREIGN if any(mark in key for key in shapes)), None)
    if what is None and lavie.refusal(shapes) is not None and any("attn_temp" in key for key in shapes):
        what = lavie.refusal(shapes)
    some = ", ".join(sorted(shapes)[:3])
    what = what or f"no model that is known here (its tensors begin with {some})"
    raise ValueError(f"{LOADER}: {path.name} is {what}. Supported are {SUPPORTED}.")


def _check_network(contents: Contents) -> None:
    """Raise ValueError unless the file has every tensor of the network in its shape."""
    try:
        network = VideoUNet(**contents.unet_config(), operations=nn, device="meta")
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise _odd(contents, error) from error
    _check_part(contents, contents.family.name, network, contents.shapes)


def _check_resampler(contents: Contents, shapes: Shapes) -> None:
    """The same of what turns an image into tokens."""
    if not shapes:
        raise ValueError(
            f"{LOADER}: {contents.path.name} has {contents.variant.title}'s network but not the part that turns the "
            "image into tokens (image_proj_model). Use a file that has it."
        )
    try:
        resampler = Resampler(**(resampler_config(shapes) or {}), operations=nn, device="meta")
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise _odd(contents, error) from error
    _check_part(contents, "image_proj_model", resampler, shapes)


def _odd(contents: Contents, error: Exception) -> ValueError:
    return ValueError(
        f"{LOADER}: {contents.path.name} looks like {contents.family.name}, but tensors that tell its size are "
        f"missing or odd ({type(error).__name__}: {error}). Download it again."
    )


def _check_part(contents: Contents, name: str, module: nn.Module, shapes: Shapes) -> None:
    wanted = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    missing, unexpected = wanted.keys() - shapes.keys(), shapes.keys() - wanted.keys()
    if missing or unexpected:
        raise not_whole(contents.path, name, missing, len(wanted), unexpected)
    for key, shape in wanted.items():
        if shapes[key] != shape:
            raise ValueError(
                f"{LOADER}: {contents.path.name} is no {name} that is known: {key} has shape {shapes[key]}, expected "
                f"{shape}. Download it again."
            )


def resampler_config(shapes: Shapes) -> dict[str, Any] | None:
    """Arguments of `Resampler` for the shapes of its tensors; None where there are none."""
    if not shapes:
        return None
    inner, width = shapes["layers.0.0.to_q.weight"]
    # 64 wide heads in all published files; narrow ones have fewer
    head = HEAD_WIDTH if inner % HEAD_WIDTH == 0 else 16
    return {
        "embedding": shapes["proj_in.weight"][1],
        "width": width,
        "depth": len({key.split(".")[1] for key in shapes if key.startswith("layers.")}),
        "heads": inner // head,
        "head_width": head,
        "queries": shapes["latents"][1],
        "output": shapes["proj_out.weight"][0],
    }


def not_whole(
    path: Path, name: str, missing: Collection[str], wanted: int, unexpected: Collection[str] = ()
) -> ValueError:
    """What to raise where a part of a file lacks some of its tensors, of which it should have `wanted`."""
    return ValueError(
        f"{LOADER}: {path.name} is not a whole {name}: {len(missing)} of {wanted} tensors are missing "
        f"({_some(missing)}), {len(unexpected)} are unexpected ({_some(unexpected)}). Download it again."
    )


def _some(names: Collection[str]) -> str:
    keys = sorted(names)
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "") if keys else "none"


def check_finite(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Raise ValueError if a weight in a file is NaN or infinite."""
    for key, tensor in state.items():
        # The sum of any such is one too, and is quick; large weights may overflow it, so it only asks for a look.
        if not torch.isfinite(tensor.sum(dtype=torch.float32)) and not torch.isfinite(tensor).all():
            raise ValueError(f"{LOADER}: {path.name} is damaged: {key} has NaN or infinite values. Download it again.")
