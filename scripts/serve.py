"""A ComfyUI with this pack, to click in: `python run.py comfy`.

Its models/, input/ and output/ are in output/comfyui of the repository. Further arguments go to ComfyUI's main.py, for
example --port 8200 or --lowvram.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .comfy_server import PACK_NAME, ComfyError, link_pack
from .locate import animatediff, bundled_comfyui, check_packages, users_comfyuis

ROOT = Path(__file__).resolve().parent.parent


def has_accelerator() -> bool:
    """Whether PyTorch sees something faster than the CPU."""
    import torch

    return bool(
        torch.cuda.is_available()
        or torch.backends.mps.is_available()
        or (hasattr(torch, "xpu") and torch.xpu.is_available())
    )


def main(arguments: list[str]) -> int:
    """Link the packs into the base directory and run ComfyUI in the foreground."""
    base_dir = ROOT / "output" / "comfyui"
    for name in ("models", "input", "output", "custom_nodes"):
        (base_dir / name).mkdir(parents=True, exist_ok=True)
    comfyui = [*users_comfyuis(), bundled_comfyui()][0]
    try:
        check_packages(comfyui)
    except ComfyError as error:
        print(error, file=sys.stderr)
        return 1
    packs = {PACK_NAME: ROOT}
    ade = animatediff(comfyui)
    if ade is not None:
        packs[ade.name] = ade
    for name, pack in packs.items():
        if not (base_dir / "custom_nodes" / name).exists():
            link_pack(pack, base_dir / "custom_nodes", name)
    device = [] if has_accelerator() or "--cpu" in arguments else ["--cpu"]
    command = [sys.executable, str(comfyui / "main.py"), "--base-directory", str(base_dir), *device, *arguments]
    print(f"ComfyUI from {comfyui}; models go to {base_dir / 'models'}. Ctrl+C ends it.", flush=True)
    try:
        return subprocess.run([*command, "--auto-launch"], cwd=comfyui).returncode
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
