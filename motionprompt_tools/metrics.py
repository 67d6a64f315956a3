"""The command metrics: any video files, measured and compared with the first."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motionprompt_core.discriminator.model import load_discriminator
from motionprompt_core.flow import load_flow_model
from motionprompt_core.media.video import stream_video
from motionprompt_core.metrics.comparison import Clip, table, to_dict
from motionprompt_core.metrics.consistency import CLIP, DINO, ImageEmbedder, frame_consistency
from motionprompt_core.metrics.measure import measure_video

from .commandline import add_command, add_network_options

PART = 8  # frames that are decoded together


def add_to(commands: Any) -> None:
    """Adds the command to an argparse parser's subparsers."""
    metrics = add_command(
        commands,
        "metrics",
        run_metrics,
        "flicker, smoothness, motion and sharpness of video files",
        "Measures videos, animated images or folders of frames, and compares each with the first.",
    )
    metrics.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a video, an animation or a folder")
    metrics.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_network_options(metrics)
    metrics.add_argument("--discriminator", type=Path, help="a flow discriminator, for its score")
    metrics.add_argument("--dino", type=Path, help=f"weights of timm's {DINO}, for subject consistency")
    metrics.add_argument("--clip", type=Path, help=f"weights of timm's {CLIP}, for background consistency")
    metrics.add_argument("--max-frames", type=int, help="look at so many frames of each, from the beginning")
    metrics.add_argument("--seam-at", type=int, help="frame, counted from 0, at which a second part begins, for seam")


def run_metrics(options: argparse.Namespace) -> None:
    device = torch.device(options.device)
    streams = [stream_video(path, length=options.max_frames) for path in options.files]  # all, before any long work
    flow = load_flow_model(options.flow_model, options.flow_weights).to(device)
    judge = load_discriminator(options.discriminator).to(device) if options.discriminator else None
    files = {"subject_consistency": (DINO, options.dino), "background_consistency": (CLIP, options.clip)}
    embedders = {key: ImageEmbedder(name, path).to(device) for key, (name, path) in files.items() if path}
    clips = []
    for path, (frames, fps) in zip(options.files, streams, strict=True):
        seen = _Seen(frames, embedders, device, path)
        try:
            measured = measure_video(seen, flow, judge, fps=fps, seam_at=options.seam_at)
        except ValueError as error:
            text = str(error)
            raise ValueError(text if str(path) in text else f"{path}: {text}") from error
        clips.append(Clip(path.name, measured, seen.consistency()))
    print(json.dumps(to_dict(clips), indent=2) if options.json else table(clips))


class _Seen:
    """A video's frames in parts (t, 3, H, W), each shown to the embedders on its way."""

    def __init__(self, frames: Iterator[np.ndarray], embedders: dict[str, ImageEmbedder], device: Any, path: Path):
        self.frames, self.embedders, self.device, self.path = frames, embedders, device, path
        self.features: dict[str, list[Tensor]] = {key: [] for key in embedders}

    def __iter__(self) -> Iterator[Tensor]:
        shape = None
        while part := list(islice(self.frames, PART)):
            shapes = {frame.shape for frame in part} | ({shape} if shape else set())
            if len(shapes) > 1:
                raise ValueError(f"video {self.path} has frames of several sizes. Scale them to one.")
            shape = part[0].shape
            video = torch.from_numpy(np.stack(part)).to(self.device).movedim(-1, 1).float().div(255)
            with torch.no_grad():
                for key, embed in self.embedders.items():
                    self.features[key].append(embed(video).cpu())
            yield video

    def consistency(self) -> dict[str, float]:
        return {key: frame_consistency(torch.cat(parts)) for key, parts in self.features.items()}
