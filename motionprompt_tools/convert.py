"""`convert FILE`: the pickle that a video model is published as, into a safetensors file of half its size.

A pickle can run code when it is opened. PyTorch's weights_only mode builds tensors and plain containers and nothing
else; what it refuses stays closed here.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motionprompt_core.media.files import PICKLE_STARTS, write_safetensors

from .commandline import add_command

# Where a training program puts the weights, and what DeepSpeed puts before their names.
_CONTAINERS = ("state_dict", "module", "model", "ema")
_WRAPPER = "_forward_module."
_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def add_to(commands: Any) -> None:
    """Add the command to the argument parser's subcommands."""
    parser = add_command(
        commands,
        "convert",
        run,
        "a pickle (.pt, .ckpt) of weights into a .safetensors file",
        "Turns the pickle of a published video model (LaVie, VideoCrafter2, DynamiCrafter) into a "
        ".safetensors file, in fp16 unless told otherwise. It is opened with PyTorch's weights_only and nothing else.",
    )
    parser.add_argument("file", type=Path, help="the .pt, .pth or .ckpt file")
    parser.add_argument("--output", type=Path, help="the file to write; without it the same name with .safetensors")
    parser.add_argument("--dtype", choices=list(_TYPES), default="fp16", help="type of the numbers")


def run(options: argparse.Namespace) -> None:
    """The command itself."""
    output = options.output or options.file.with_suffix(".safetensors")
    count = convert(options.file, output, _TYPES[options.dtype])
    print(f"{count} tensors in {options.dtype}: {output} ({output.stat().st_size / 2**30:.2f} GiB)")


def convert(path: Path, output: Path, dtype: torch.dtype = torch.float16) -> int:
    """Write the tensors of a pickle to a safetensors file; returns their number.

    Floating-point tensors become `dtype`, except the noise schedule's, of which half precision would lose digits.

    Raises:
        FileNotFoundError, FileExistsError: there is no such file, or there is the other already.
        ValueError: it is no pickle, cannot be opened safely, holds no tensors, or they do not fit into `dtype`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}. Check the name and the folder.")
    if output.suffix != ".safetensors":
        raise ValueError(f"{output} must end in .safetensors, or ComfyUI will not know what it is.")
    if output.exists():
        raise FileExistsError(f"{output} exists already. Remove it, or name another with --output.")
    state = tensors_of(_read(path))
    if not state:
        raise ValueError(f"{path} holds no tensors, so it is no file of weights. Download it again.")
    converted = {key: _as_type(key, tensor, dtype, path) for key, tensor in state.items()}
    write_safetensors(converted, output, {"converted_from": path.name})
    return len(converted)


def tensors_of(content: Any) -> dict[str, Tensor]:
    """The tensors of an unpickled file by name: of its container if it has one, and without DeepSpeed's prefix."""
    for name in _CONTAINERS:
        inner = content.get(name) if isinstance(content, Mapping) else None
        if isinstance(inner, Mapping):
            return tensors_of(inner)
    items = content.items() if isinstance(content, Mapping) else ()
    return {str(key).removeprefix(_WRAPPER): value for key, value in items if isinstance(value, Tensor)}


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        if not file.read(4).startswith(PICKLE_STARTS):
            raise ValueError(f"{path} is no pickle of PyTorch's. A .safetensors file needs no conversion.")
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):  # files of before PyTorch 1.6 cannot be mapped
                raise
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make it raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if type(error).__name__ == "UnpicklingError" and "truncated" not in reason:
            raise ValueError(
                f"{path} holds more than weights, such as objects of a training program, and would run code to make "
                f"them: it is not opened ({reason}). Look for a .safetensors version of the same model."
            ) from error
        raise ValueError(
            f"{path} is truncated or damaged ({reason}). It has {path.stat().st_size} bytes. Download it again."
        ) from error


def _as_type(key: str, tensor: Tensor, dtype: torch.dtype, path: Path) -> Tensor:
    plain = tensor.detach()
    if not plain.is_floating_point() or "." not in key:  # schedules are buffers of the whole model
        return plain
    made = plain.to(dtype)
    # A sum shows NaN and infinity quickly; it may overflow by itself, so it only asks for a closer look.
    if not torch.isfinite(made.sum(dtype=torch.float32)) and not torch.isfinite(made).all():
        whole = bool(torch.isfinite(plain).all())
        remedy = f"It does not fit into {dtype}: use --dtype bf16." if whole else "Download it again."
        raise ValueError(f"{path}: {key} has NaN or infinite values. {remedy}")
    return made
