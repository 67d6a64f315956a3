"""Flows for the general discriminator: real clips, the same clips with simulated faults, and rendered ones.

    python -m motionprompt_core.training.general_data --data DIR --out runs/general --seeds 400

DIR holds one folder of frames for each sequence. Each seed becomes a file of its own with the flow of a real clip and
of two faulty ones; what is there is not made again. Real and faulty clips are cropped, resampled and compressed alike.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..demo import world
from ..files import write_safetensors
from ..flow import FlowModel, load_flow_model
from ..video import read_video
from .clips import compressed
from .faults import TRAINED, apply_fault, displace

TRAINING_SEQUENCES = (
    "bmx-trees", "camel", "car-roundabout", "cows", "dance-twirl", "drift-chicane", "goat", "soapbox",
)
GRID = 128
SIZES = (96, 96, 96, 128, 128, 128, 128, 192)  # px that flow is measured at: clips come in all sizes
GAPS = (1, 1, 1, 2, 2, 4)
STEPS = (1, 1, 2, 3)  # source frames from one frame to the next: sources come in all frame rates
FRAMES = 9
PAIRS, FAULTY_PAIRS, KINDS = 3, 2, 2
STILL_SHARE, PAN_SHARE, SPRITE_SHARE = 0.07, 0.07, 0.15


@dataclass(frozen=True)
class Pair:
    """Two frames of a clip."""

    first: int
    second: int


@torch.no_grad()
def flows_of_seed(seed: int, data: Path, sequences: Sequence[str], flow_model: FlowModel) -> dict[str, Tensor]:
    """Flows (P, 2, GRID, GRID) in px of the grid under the names "real" and "fake.KIND"."""
    generator = Generator().manual_seed(seed)
    clip = real_clip(data, sequences, generator)
    quality = _compression(generator)
    pairs = draw_pairs(len(clip), PAIRS, generator)
    flows = {"real": measure(_compressed(clip, quality), pairs, flow_model)}
    kinds = [list(TRAINED)[i] for i in torch.randperm(len(TRAINED), generator=generator)[:KINDS].tolist()]
    for kind in kinds:
        severity = 0.2 * 6 ** torch.rand((), generator=generator).item()
        faulty = apply_fault(kind, clip, severity, generator)
        changed = [pair for pair in pairs + draw_pairs(len(clip), PAIRS, generator) if _differs(clip, faulty, pair)]
        if changed:
            flows[f"fake.{kind}"] = measure(_compressed(faulty, quality), changed[:FAULTY_PAIRS], flow_model)
    return flows


def real_clip(data: Path, sequences: Sequence[str], generator: Generator) -> Tensor:
    """A square window of a sequence, or of the sprite world, (FRAMES, 3, S, S): some of them stills or pans of stills.

    Flow at a pixel and its neighbours must not betray that a fault's warp has resampled the picture, so real clips are
    resampled too, by a warp that does not change in time.
    """
    size, sprites, sequence = _source(sequences, generator)
    if sprites:
        clip = world.render(world.random_clip(generator, fault_share=0))[0][:FRAMES]
        clip = F.interpolate(clip, size=(size, size), mode="bilinear", antialias=True)
    else:
        clip = window(data / sequence, size, generator)
    draw = torch.rand((), generator=generator).item()
    if draw < STILL_SHARE + PAN_SHARE:
        clip = clip[:1].expand_as(clip)
        if draw < STILL_SHARE:
            grain = 0.015 * torch.rand((), generator=generator) * torch.randn(clip.shape, generator=generator)
            return (clip + grain).clamp(0, 1)
        clip = pan(clip, generator)
    shift = torch.rand(1, 2, 1, 1, generator=generator)
    gain = 1 + 0.2 * torch.randn(1, 3, 1, 1, generator=generator).clamp(-1.5, 1.5)
    return (displace(clip, shift) * gain).clamp(0, 1)


def _source(sequences: Sequence[str], generator: Generator) -> tuple[int, bool, str]:
    """Size of a seed's clip, whether it is of the sprite world, and else of which sequence."""
    size, sprites = _one_of(SIZES, generator), _chance(SPRITE_SHARE, generator)
    return size, sprites, "" if sprites else _one_of(sequences, generator)


def sequence_of(seed: int) -> str:
    """The sequence that `flows_of_seed` takes for a seed, for a split by sequence; empty for sprites."""
    return _source(TRAINING_SEQUENCES, Generator().manual_seed(seed))[2]


def pan(clip: Tensor, generator: Generator) -> Tensor:
    """A camera's steady pan and zoom over a still."""
    time = torch.linspace(-1, 1, len(clip)).view(-1, 1, 1, 1)
    size = clip.shape[-1]
    axis = (torch.arange(size) + 0.5) / size - 0.5
    positions = torch.stack((axis.expand(size, size), axis.view(-1, 1).expand(size, size)))
    move = 0.08 * torch.randn(2, 1, 1, generator=generator) + 0.08 * torch.randn((), generator=generator) * positions
    return displace(clip, time * move * size)


def window(folder: Path, size: int, generator: Generator) -> Tensor:
    """FRAMES frames of a random square of a sequence, at a random speed, scaled to `size`."""
    count = sum(1 for _ in folder.iterdir())
    step = _one_of([step for step in STEPS if (FRAMES - 1) * step < count], generator)
    start = int((count - (FRAMES - 1) * step) * torch.rand((), generator=generator))
    video, _ = read_video(folder, start=start, length=FRAMES, step=step)
    side = round(min(video.shape[-2:]) * (0.6 + 0.4 * torch.rand((), generator=generator).item()))
    top, left = (int((n - side + 1) * torch.rand((), generator=generator)) for n in video.shape[-2:])
    video = video[:, :, top : top + side, left : left + side]
    return F.interpolate(video, size=(size, size), mode="bilinear", antialias=True).clamp(0, 1)


def draw_pairs(frames: int, count: int, generator: Generator) -> list[Pair]:
    pairs = []
    for _ in range(count):
        gap = _one_of(GAPS, generator)
        first = int((frames - gap) * torch.rand((), generator=generator))
        pairs.append(Pair(first, first + gap))
    return pairs


def measure(clip: Tensor, pairs: Sequence[Pair], flow_model: FlowModel) -> Tensor:
    """Flow of pairs, (P, 2, GRID, GRID), px of the grid."""
    flow = flow_model(clip[[pair.first for pair in pairs]], clip[[pair.second for pair in pairs]])
    scale = GRID / flow.shape[-1]
    if scale == 1:
        return flow
    return F.interpolate(flow, size=(GRID, GRID), mode="bilinear", antialias=True) * scale


def _differs(clip: Tensor, faulty: Tensor, pair: Pair) -> bool:
    """Whether the fault has touched the pair: not if both frames are as they were."""
    both = [pair.first, pair.second]
    return bool((faulty[both] - clip[both]).abs().mean() > 1e-4)


def _compressed(clip: Tensor, quality: int | None) -> Tensor:
    return clip if quality is None else compressed(clip, quality)


def _compression(generator: Generator) -> int | None:
    return None if _chance(0.4, generator) else 40 + int(55 * torch.rand((), generator=generator))


def _chance(share: float, generator: Generator) -> bool:
    return torch.rand((), generator=generator).item() < share


def _one_of(choices: Sequence, generator: Generator):
    return choices[int(torch.randint(len(choices), (), generator=generator))]


@functools.cache
def rife() -> FlowModel:
    torch.set_num_threads(1)
    return load_flow_model("rife_v4.0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/general"))
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sequences", nargs="+", default=list(TRAINING_SEQUENCES))
    args = parser.parse_args()
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        file = args.out / "flows" / f"{seed:06d}.safetensors"
        if not file.exists():
            flows = flows_of_seed(seed, args.data, args.sequences, rife())
            write_safetensors({k: v.half() for k, v in flows.items()}, file, {"sequences": json.dumps(args.sequences)})


if __name__ == "__main__":
    main()
