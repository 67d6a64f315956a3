"""The demo's weight file: text encoder, UNet and autoencoder in one .safetensors.

    python -m motionprompt_core.demo.checkpoint --run runs/demo --out weights/demo_video_model.safetensors
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import train_autoencoder, world
from .autoencoder import Autoencoder
from .text import TextEncoder
from .unet import TextToVideo, VideoUNet

FORMAT = "motionprompt-demo-video-model-1"


@dataclass
class DemoWeights:
    """The demo model's networks. `preview` (5, 3) maps 4 latent channels and a constant to RGB, for live previews."""

    text: TextEncoder
    unet: VideoUNet
    autoencoder: Autoencoder
    preview: Tensor


def load_demo_weights(path: str | Path) -> DemoWeights:
    """Reads the demo's weight file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: restore it from the pack, or train it (see weights/README.md)")
    try:
        with safe_open(str(path), framework="pt") as file:
            found = (file.metadata() or {}).get("format")
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path.name} is damaged ({error}): restore it from the pack") from error
    if found != FORMAT:
        raise ValueError(f"{path.name} is not the demo model: its format is {found!r}, expected {FORMAT!r}")
    weights = DemoWeights(TextEncoder(), VideoUNet(), Autoencoder(), tensors.pop("preview"))
    for name in ("text", "unet", "autoencoder"):
        module: nn.Module = getattr(weights, name)
        prefix = name + "."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        module.eval().requires_grad_(False)
    return weights


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
    metadata = {"format": FORMAT, "data": "the sprite world, rendered", "license": "GPL-3.0",
                "training": json.dumps(training)}
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
