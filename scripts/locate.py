"""Where the ComfyUIs and AnimateDiff-Evolved are that run.py, the demo and the tests use.

Looked at, in this order:
1. COMFYUI_PATH, or ~/comfy/ComfyUI when it is unset: the user's ComfyUI, the place for AnimateDiff-Evolved;
2. COMFYUI_PATH_2, or ~/comfy/ComfyUI-0.8.0: a second version for the tests;
3. the copy that run.py unpacks into the virtual environment (ComfyUI 0.3.75).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .comfy_server import comfyui_version, find_animatediff


def bundled_comfyui() -> Path:
    """The copy that run.py makes in the virtual environment of this interpreter (it may not exist yet)."""
    return Path(sys.prefix) / "comfyui" / "ComfyUI"


def candidates() -> list[Path]:
    """The ComfyUI folders that exist, the user's first."""
    home = Path.home() / "comfy"
    paths = [
        Path(os.environ.get("COMFYUI_PATH") or home / "ComfyUI"),
        Path(os.environ.get("COMFYUI_PATH_2") or home / "ComfyUI-0.8.0"),
        bundled_comfyui(),
    ]
    return [path.resolve() for path in paths if (path / "main.py").is_file()]


def comfyuis() -> list[Path]:
    """One ComfyUI per version, the user's before the bundled copy."""
    by_version: dict[str, Path] = {}
    for path in candidates():
        by_version.setdefault(comfyui_version(path), path)
    return list(by_version.values())


def animatediff(comfyui: Path | None = None) -> Path | None:
    """AnimateDiff-Evolved: in this ComfyUI if it has one, else in any other that exists; None if it is nowhere."""
    for path in ([comfyui] if comfyui is not None else []) + candidates():
        found = find_animatediff(path)
        if found is not None:
            return found
    return None
