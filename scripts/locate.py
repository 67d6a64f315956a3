"""Where the ComfyUIs and AnimateDiff-Evolved are that run.py, the demo and the tests use.

Any number of ComfyUIs, one for each version:
1. the folders that COMFYUI_PATH names (several are separated as in PATH), or every ~/comfy/ComfyUI* when it is unset;
2. the copy that run.py unpacks into the virtual environment (ComfyUI 0.3.75).
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from pathlib import Path

from .comfy_server import ComfyError, comfyui_version, find_animatediff

# What the README says was tested; the last lines of a test run tell which of these it had.
TESTED = ("0.3.75", "0.8.0", "0.12.1", "0.18.1", "0.33.0")
# ComfyUI starts without these: templates and help of its own nodes.
NOT_NEEDED = {"comfyui-workflow-templates", "comfyui-embedded-docs"}


def bundled_comfyui() -> Path:
    """The copy that run.py makes in the virtual environment of this interpreter (it may not exist yet)."""
    return Path(sys.prefix) / "comfyui" / "ComfyUI"


def users_comfyuis() -> list[Path]:
    """The folders that COMFYUI_PATH names, in its order, or every ~/comfy/ComfyUI*; those that hold a ComfyUI."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        paths = [Path(folder) for folder in named.split(os.pathsep) if folder]
    else:
        paths = sorted((Path.home() / "comfy").glob("ComfyUI*"))
    return [path.resolve() for path in paths if (path / "main.py").is_file()]


def comfyuis() -> list[Path]:
    """One ComfyUI for each version, the oldest first; of two with the same version the user's."""
    by_version: dict[str, Path] = {}
    for path in [*users_comfyuis(), bundled_comfyui().resolve()]:
        if (path / "main.py").is_file():
            by_version.setdefault(comfyui_version(path), path)
    return [by_version[version] for version in sorted(by_version, key=version_key)]


def version_key(version: str) -> tuple[int, ...]:
    """Sorts "0.12.1" after "0.8.0"."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def oldest_and_newest(paths: list[Path]) -> list[Path]:
    """The first and the last of a list in order, once if they are the same."""
    return list(dict.fromkeys([*paths[:1], *paths[-1:]]))


def animatediff(comfyui: Path | None = None) -> Path | None:
    """AnimateDiff-Evolved: in this ComfyUI if it has one, else in any other that exists; None if it is nowhere."""
    for path in ([comfyui] if comfyui is not None else []) + comfyuis():
        found = find_animatediff(path)
        if found is not None:
            return found
    return None


def what_is_covered() -> list[str]:
    """What the tests find on this machine, and what they do without, in lines for the end of a run."""
    found, ends = comfyuis(), oldest_and_newest(comfyuis())
    between = [comfyui_version(path) for path in found if path not in ends]
    absent = [version for version in TESTED if version not in map(comfyui_version, found)]
    lines = [f"ComfyUI: {', '.join(map(comfyui_version, ends)) or 'none'}"]
    if between:
        lines.append(f"start-up, quickstart, identity, gradients and workflows also on {', '.join(between)}")
    if absent:
        lines.append(f"absent, so not tested: ComfyUI {', '.join(absent)} (name their folders in COMFYUI_PATH)")
    return [*lines, f"AnimateDiff-Evolved: {animatediff() or 'absent'}"]


def newest_frontend() -> Path | None:
    """The newest interface, for ComfyUI's --front-end-root: MOTIONPROMPT_FRONTEND, or what run.py installed beside the
    environment's own; None if there is none."""
    installed = Path(sys.prefix) / "frontend" / "comfyui_frontend_package" / "static"
    path = Path(os.environ.get("MOTIONPROMPT_FRONTEND") or installed)
    return path if (path / "index.html").is_file() else None


def missing_packages(comfyui: Path) -> list[str]:
    """What a ComfyUI's requirements.txt asks for and this interpreter does not have, as lines for pip.

    What the file calls non-essential is not looked at, nor are versions.

    Raises:
        ComfyError: the folder holds no ComfyUI.
    """
    comfyui_version(comfyui)
    file = comfyui / "requirements.txt"
    essential = file.read_text(encoding="utf-8").split("#non essential")[0] if file.is_file() else ""
    missing = []
    for line in essential.splitlines():
        name = re.match(r"[A-Za-z0-9._-]+", line.strip())
        if name and re.sub(r"[-_.]+", "-", name[0]).lower() not in NOT_NEEDED and not _installed(name[0]):
            missing.append(line.strip())
    return missing


def check_packages(comfyui: Path) -> None:
    """Raises ComfyError where this environment cannot start that ComfyUI, with the command that helps."""
    missing = missing_packages(comfyui)
    if missing:
        wanted = " ".join(f'"{line}"' for line in missing)
        raise ComfyError(
            f"ComfyUI {comfyui_version(comfyui)} in {comfyui} asks for packages that the environment which run.py made "
            f"does not have. Install them there and start again:\n{sys.executable} -m pip install {wanted}"
        )


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
