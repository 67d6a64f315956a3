"""What a bug report has to tell of the machine: versions, device, and how the models lie in its memory."""

from __future__ import annotations

import importlib
import logging
import platform
import re
import sys
from collections import Counter
from pathlib import Path

import comfy.ldm.modules.attention
import comfy.model_management
import torch
from torch import nn

from .comfy_types import ModulePatcher

PACK = Path(__file__).resolve().parents[2]
# Versions of ComfyUI that the tests run with, the oldest and the newest, and devices that they ran on.
TESTED = ("0.3.75", "0.33.0")
TESTED_DEVICES = ("cpu",)
# Devices on which the self-check said "agrees" since ComfyUI was started.
proved: set[str] = set()


def untested(device: torch.device) -> str:
    """A line for the report where MotionPrompt has not been seen to work; empty where it has."""
    version, kind = _version_of_comfyui(), device.type
    new = _numbers(version) > _numbers(TESTED[1])
    if kind in proved or (kind in TESTED_DEVICES and not new):
        return ""
    seen = f"MotionPrompt was tested on {'/'.join(TESTED_DEVICES)} with ComfyUI {TESTED[0]} to {TESTED[1]}"
    return f"{seen}; this is {kind} with {version}. MotionPrompt Self-Check shows whether gradients are right here."


def versions() -> str:
    """One line."""
    parts = [f"ComfyUI {_version_of_comfyui()}", f"torch {torch.__version__}", f"python {platform.python_version()}"]
    parts += [f"MotionPrompt {_project_version(PACK)}", f"AnimateDiff-Evolved {_version_of_animatediff()}"]
    return " | ".join([*parts, platform.system()])


def device_line(device: torch.device) -> str:
    """The device, how ComfyUI uses its memory, and the attention that it uses outside of gradients."""
    management = comfy.model_management
    free, total = management.get_free_memory(device), management.get_total_memory(device)
    attention = comfy.ldm.modules.attention.optimized_attention.__name__
    return (
        f"{management.get_torch_device_name(device)} | {management.vram_state.name.lower()} | "
        f"{_gib(free)} of {_gib(total)} free | {attention}, in gradients attention_pytorch"
    )


def model_line(patcher: ModulePatcher, computes: torch.dtype | None) -> str:
    """A model's class, types, where it lies and how much of it.

    Args:
        patcher: ComfyUI's handle on it. computes: the type it computes in, None for that of its weights.
    """
    network: nn.Module = getattr(patcher.model, "diffusion_model", patcher.model)
    size, loaded = patcher.model_size(), patcher.loaded_size()
    dynamic = getattr(patcher, "is_dynamic", lambda: False)()
    weights = _weight_types(network)
    kind = type(patcher.model).__name__
    kind = kind if network is patcher.model else f"{kind} ({type(network).__name__})"
    return (
        f"{kind}: weights {weights}, computes in {_name(computes) if computes else 'the same'}, "
        f"{_gib(loaded)} of {_gib(size)} resident{' (dynamic VRAM)' if dynamic else ''}, "
        f"on {patcher.load_device}, {len(patcher.patches)} LoRA weights"
    )


def _weight_types(network: nn.Module) -> str:
    """Types of the weights by the share of their numbers, quantised ones by the class that holds them."""
    counts: Counter[str] = Counter()
    for weight in network.parameters():
        plain = type(weight) is nn.Parameter and type(weight.data) is torch.Tensor
        counts[_name(weight.dtype) if plain else type(weight.data).__name__] += weight.numel()
    total = sum(counts.values())
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in counts.most_common()) or "none"


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size > 2**28 else f"{size / 2**20:.1f} MiB"


def _version_of_comfyui() -> str:
    try:
        return importlib.import_module("comfyui_version").__version__
    except (ImportError, AttributeError):
        logging.warning("MotionPrompt: this ComfyUI does not tell its version.")
        return "unknown"


def _version_of_animatediff() -> str:
    node = importlib.import_module("nodes").NODE_CLASS_MAPPINGS.get("ADE_UseEvolvedSampling")
    module = None if node is None else sys.modules.get(node.__module__.split(".animatediff")[0])
    file = getattr(module, "__file__", None)
    return "absent" if node is None else "unknown" if file is None else _project_version(Path(file).parent)


def _project_version(folder: Path) -> str:
    """As it stands in pyproject.toml; Python 3.10 has no reader for it."""
    file = folder / "pyproject.toml"
    found = (
        re.search(r'^version\s*=\s*"(.+?)"', file.read_text(encoding="utf-8"), re.MULTILINE) if file.is_file() else None
    )
    return found.group(1) if found else "unknown"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
