"""Safetensors in and out, with errors that say which file, what was wrong and what to do."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

# How a pickle begins: a zip archive (torch.save since 1.6) or the pickle protocol opcode.
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_header(path: str | Path, what: str) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Names and shapes of a safetensors file's tensors, and its metadata, without reading the tensors.

    Args, Raises: as `read_safetensors`.
    """
    with _opened(path, what) as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (not a dict)
        return shapes, file.metadata() or {}


def read_safetensors(path: str | Path, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a whole safetensors file.

    Args:
        path: the file.
        what: what the file should be, for the error messages, e.g. "flow discriminator".

    Returns:
        The tensors on the CPU and the header's metadata (empty when there is none).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a pickle, is truncated, or is no safetensors file.
    """
    with _opened(path, what) as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        return state, file.metadata() or {}


@contextmanager
def _opened(path: str | Path, what: str) -> Iterator[Any]:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what}: there is no file {path}. Check the name and the folder.")
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(PICKLE_STARTS):
        raise ValueError(
            f"{what} {path} is a pickle (.pt, .pth, .pkl or .ckpt content). Pickles can run code and are not opened; "
            "expected a .safetensors file. If you trust the file, convert it once with safetensors.torch.save_file."
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{what} {path} cannot be read: it is truncated, damaged or no safetensors file ({error}). "
            f"The file has {path.stat().st_size} bytes. Download or save it again."
        ) from error


def write_safetensors(state: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write `state` to `path` in one step: a crash or a full disk leaves the old file as it was."""
    with written_whole(path) as temporary:
        save_file(_separate(state), temporary, metadata=dict(metadata))


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A file to write in place of `path`, which it becomes if nothing goes wrong.

    Raises:
        OSError: it could not be written; what was at `path` still is.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes it private to the user
        temporary.replace(path)
    except (SafetensorError, OSError) as error:
        raise OSError(f"{path} could not be written ({error}). Is the disk full? Make room.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors on the CPU, contiguous, and no two on the same memory: what safetensors can write."""
    separate, seen = {}, set()
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        separate[key] = tensor
    return separate


def load_state(module: nn.Module, state: Mapping[str, Tensor], path: str | Path, what: str) -> None:
    """Copy `state` into `module`, only if every name, shape and type fits and every number is finite.

    Raises:
        ValueError: naming the first keys that are missing, unexpected, of another shape or type, or not finite.
    """
    check_shapes(module, {key: tuple(value.shape) for key, value in state.items()}, path, what)
    own = module.state_dict()
    for key, value in state.items():
        if own[key].is_floating_point() and value.dtype not in _NUMBERS:
            raise ValueError(
                f"{what} {path} cannot be used: {key} has {str(value.dtype).removeprefix('torch.')}, expected floating "
                "point of 16 to 64 bits. Convert it, or choose another file."
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{what} {path} is damaged: {key} has NaN or infinite values. Download or train it again.")
    module.load_state_dict(dict(state))


def check_shapes(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], path: str | Path, what: str) -> None:
    """Raise ValueError unless a file with tensors of these names and shapes fits `module` (which may be on "meta")."""
    own = module.state_dict()
    missing = [key for key in own if key not in shapes]
    unexpected = [key for key in shapes if key not in own]
    if missing or unexpected:
        raise ValueError(
            f"{what} {path} holds another architecture: {len(missing)} expected tensors are missing "
            f"({_some(missing)}), {len(unexpected)} are unexpected ({_some(unexpected)}). Choose a file made for this."
        )
    for key, shape in shapes.items():
        if shape != tuple(own[key].shape):
            raise ValueError(
                f"{what} {path} holds another architecture: {key} has shape {shape}, "
                f"expected {tuple(own[key].shape)}. Choose a file made for this."
            )


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "") if keys else "none"
