"""Renders clips of the sprite world and stores their latents, in shards that training picks up.

python -m research.demo.dataset --run runs/demo --shards 12
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from motionprompt_tools import world

from . import train_autoencoder

CLIPS_PER_SHARD = 256


@torch.no_grad()
def write_shard(run: Path, index: int) -> Path:
    """Latents (256, 16, 4, 16, 16) of unit variance and sprite masks at latent size; the clips as JSON metadata."""
    path = run / f"clips-{index:03d}.safetensors"
    if path.exists():
        return path
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1000 + index)
    model = train_autoencoder.load(run)
    clips, latents, masks = [], [], []
    for _ in range(CLIPS_PER_SHARD):
        clip = world.random_clip(generator)
        video, _, mask = world.render(clip)
        clips.append(asdict(clip))
        latents.append((model.encode(video * 2 - 1) * model.scale).half())
        masks.append((F.avg_pool2d(mask[None], 8)[0] * 255).byte())
    temporary = path.with_suffix(".part")
    save_file({"latents": torch.stack(latents), "masks": torch.stack(masks)}, temporary, {"clips": json.dumps(clips)})
    temporary.rename(path)
    return path


def read_shards(run: Path) -> tuple[Tensor, Tensor, list[world.Clip]]:
    """All shards of a run: latents (N, 16, 4, 16, 16) fp16, masks (N, 16, 16, 16) uint8, clips."""
    latents, masks, clips = [], [], []
    for path in sorted(run.glob("clips-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            latents.append(file.get_tensor("latents"))
            masks.append(file.get_tensor("masks"))
            clips += [world.Clip(**fields) for fields in json.loads(file.metadata()["clips"])]
    if not clips:
        raise FileNotFoundError(f"no clips-*.safetensors in {run}: run python -m research.demo.dataset first")
    return torch.cat(latents), torch.cat(masks), clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        for path in pool.starmap(write_shard, [(args.run, i) for i in range(args.shards)], chunksize=1):
            print(path, flush=True)


if __name__ == "__main__":
    main()
