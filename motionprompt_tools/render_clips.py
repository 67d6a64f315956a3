"""Renders clips of the sprite world, the demo model's real side: for the workflow train_discriminator.

python -m motionprompt_tools.render_clips ComfyUI/input/rendered_clips --count 24
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from motionprompt_tools.writing import write_video

from . import world

FIRST_SEED = 40_000


def render_clips(folder: Path, count: int, first_seed: int = FIRST_SEED) -> list[Path]:
    """Writes animated .webp files of clean footage at 8 frames a second, named by seed."""
    files = []
    for seed in range(first_seed, first_seed + count):
        clip = world.random_clip(torch.Generator().manual_seed(seed), fault_share=0)
        files.append(folder / f"{seed}.webp")
        write_video(world.render(clip)[0], files[-1], fps=8)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    args = parser.parse_args()
    files = render_clips(args.folder, args.count, args.first_seed)
    print(f"{len(files)} clips in {args.folder}")


if __name__ == "__main__":
    main()
