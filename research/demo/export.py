"""Writes the demo's weight file from a training run.

python -m research.demo.export --run runs/demo --out weights/demo_video_model.safetensors
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from motionprompt_core.demo.autoencoder import Autoencoder
from motionprompt_core.demo.checkpoint import FORMAT
from motionprompt_tools import world

from . import train_autoencoder
from .networks import TextToVideo


@torch.no_grad()
def preview_factors(autoencoder: Autoencoder, clips: int = 64) -> Tensor:
    """Least-squares map from scaled latents to RGB in [-1, 1], (5, 3); the last row is the constant."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.cat([world.render(world.random_clip(generator), frames=1)[0] for _ in range(clips)]) * 2 - 1
    latents = autoencoder.encode(frames) * autoencoder.scale
    colours = nn.functional.avg_pool2d(frames, 8)
    a = latents.movedim(1, -1).flatten(0, 2)
    a = torch.cat((a, torch.ones(len(a), 1)), dim=1)
    return torch.linalg.lstsq(a, colours.movedim(1, -1).flatten(0, 2)).solution


def export(run: Path, stage: str, out: Path, training: dict[str, str]) -> None:
    """Gathers a training run's averaged weights into one fp16 file."""
    model, autoencoder = TextToVideo(), train_autoencoder.load(run)
    model.load_state_dict(load_file(run / f"{stage}.safetensors"))
    tensors = {f"text.{k}": v for k, v in model.text.state_dict().items()}
    tensors |= {f"unet.{k}": v for k, v in model.unet.state_dict().items()}
    tensors |= {f"autoencoder.{k}": v for k, v in autoencoder.state_dict().items()}
    tensors["preview"] = preview_factors(autoencoder)
    metadata = {
        "format": FORMAT,
        "data": "the sprite world, rendered",
        "license": "GPL-3.0",
        "training": json.dumps(training),
    }
    save_file({k: v.half().contiguous() for k, v in tensors.items()}, out, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--stage", default="video", choices=("image", "video"))
    parser.add_argument("--out", type=Path, default=Path("weights/demo_video_model.safetensors"))
    args = parser.parse_args()
    step = torch.load(args.run / f"{args.stage}.pt", weights_only=True)["step"]
    export(args.run, args.stage, args.out, {"stage": args.stage, "step": str(step)})


if __name__ == "__main__":
    main()
