"""The command metrics: any video files, measured and compared with the first."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from ..discriminator.model import load_discriminator
from ..flow import available_flow_models, load_flow_model
from ..media.video import read_video
from .comparison import Clip, table, to_dict
from .consistency import CLIP, DINO, ImageEmbedder, consistency
from .video import measure_video


def add_to(commands: Any) -> None:
    """Adds the command to an argparse parser's subparsers."""
    metrics = commands.add_parser(
        "metrics",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        help="flicker, smoothness, motion and sharpness of video files",
        description="Measures videos, animated images or folders of frames, and compares each with the first.",
    )
    metrics.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a video, an animation or a folder")
    metrics.add_argument("--json", action="store_true", help="print JSON instead of a table")
    metrics.add_argument("--flow-model", choices=available_flow_models(), default="rife_v4.0", help="measures motion")
    metrics.add_argument("--flow-weights", type=Path, help="a .safetensors with its weights, if not installed")
    metrics.add_argument("--discriminator", type=Path, help="a flow discriminator, for its score")
    metrics.add_argument("--dino", type=Path, help=f"weights of timm's {DINO}, for subject consistency")
    metrics.add_argument("--clip", type=Path, help=f"weights of timm's {CLIP}, for background consistency")
    metrics.add_argument("--max-frames", type=int, help="look at so many frames of each, from the beginning")
    metrics.add_argument("--device", default="cpu", help="where the networks run, e.g. cuda")
    metrics.set_defaults(run=run_metrics)


def run_metrics(options: argparse.Namespace) -> None:
    device = torch.device(options.device)
    videos = [read_video(path, length=options.max_frames) for path in options.files]
    flow = load_flow_model(options.flow_model, options.flow_weights).to(device)
    judge = load_discriminator(options.discriminator).to(device) if options.discriminator else None
    files = {"subject_consistency": (DINO, options.dino), "background_consistency": (CLIP, options.clip)}
    embedders = {key: ImageEmbedder(name, path).to(device) for key, (name, path) in files.items() if path}
    clips = []
    for path, (frames, fps) in zip(options.files, videos, strict=True):
        frames = frames.to(device)
        try:
            measured = measure_video(frames, flow, judge, fps=fps)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        found = {key: consistency(frames, embedder) for key, embedder in embedders.items()}
        clips.append(Clip(path.name, measured, found))
    print(json.dumps(to_dict(clips), indent=2) if options.json else table(clips))
