"""Flows for the general discriminator: real clips, the same clips with simulated faults, and rendered ones.

    python -m research.general.data --data DIR DIR2 --out runs/general --seeds 1000

The folders hold one folder of frames for each sequence. Each seed becomes a file of its own with the flow of a real
clip and of the same pairs of frames with faults; what is there is not made again. Both are cropped, resampled and
compressed alike. `--demo` adds rendered clips, rendered faults and videos of the demo model, of so many seeds.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from motionprompt_core.demo.checkpoint import load_demo_weights
from motionprompt_core.discriminator.clips import compressed
from motionprompt_core.flow import available_flow_models, load_flow_model
from motionprompt_core.flow.base import FlowModel
from motionprompt_core.guidance.pairs import ends
from motionprompt_core.media.files import write_safetensors
from motionprompt_core.media.video import read_video
from motionprompt_tools import world

from ..demo.pipeline import DemoPipeline
from .faults import TRAINED, apply_fault, blob, displace
from .footage import TRAINING, names

TRAINING_SEQUENCES = names(TRAINING)
GRID = 64  # Lucas-Kanade's window blurs anything finer away
SIZES = (96, 112, 128, 128, 128, 160, 192)  # px that flow is measured at: clips come in all sizes
GAPS = (1, 1, 1, 2)  # further apart Lucas-Kanade loses what moves fast, and a real clip looks faulty
STEPS = (1, 1, 2, 3)  # source frames from one frame to the next: sources come in all frame rates
FRAMES = 9
FLOWS = 2  # in a row: what changes its motion from one frame to the next is seldom real
ROWS, KINDS = 3, 3
STILL_SHARE, PAN_SHARE, SPRITE_SHARE, COLLAGE_SHARE = 0.05, 0.10, 0.06, 0.25
DEMO_SEED = 70_000  # and the next ones; the tests' begin at 60,000


@torch.no_grad()
def flows_of_seed(
    seed: int, data: Sequence[Path], sequences: Sequence[str], flow_model: FlowModel
) -> dict[str, Tensor]:
    """Flows (ROWS, 2 * FLOWS, GRID, GRID) of the same frames in px of the grid, named "real" and "fake.KIND"."""
    generator = Generator().manual_seed(seed)
    clip = real_clip(data, sequences, generator)
    quality = _compression(generator)
    rows = draw_rows(len(clip), ROWS, generator)
    flows = {"real": measure(_compressed(clip, quality), rows, flow_model)}
    for kind in [list(TRAINED)[i] for i in torch.randperm(len(TRAINED), generator=generator)[:KINDS].tolist()]:
        severity = 0.2 * 6 ** torch.rand((), generator=generator).item()
        faulty = apply_fault(kind, clip, severity, generator)
        flows[f"fake.{kind}"] = measure(_compressed(faulty, quality), rows, flow_model)
    return flows


@torch.no_grad()
def demo_clips(seed: int, pipeline: DemoPipeline) -> dict[str, Tensor]:
    """A rendered clip ("real"), one with faults, and the demo model's video with the first one's caption.

    All come out of the model's autoencoder, as what the guidance judges does: its softness is no fault of motion.
    """
    generator = Generator().manual_seed(seed)
    steady, faulty = (world.random_clip(generator, fault_share=share) for share in (0, 1))
    clips = {
        name: pipeline.decode(pipeline.encode(world.render(clip)[0]))
        for name, clip in (("real", steady), ("fake.sprites", faulty))
    }
    clips["fake.demo"] = pipeline.sample(world.caption(steady), seed)[0]
    return {name: clip.clamp(0, 1) for name, clip in clips.items()}


def demo_flows(seed: int, pipeline: DemoPipeline, flow_model: FlowModel) -> dict[str, Tensor]:
    """As `flows_of_seed`, of the demo's clips."""
    clips = demo_clips(seed, pipeline)
    rows = draw_rows(len(clips["real"]), ROWS, Generator().manual_seed(seed))
    return {name: measure(clip, rows, flow_model) for name, clip in clips.items()}


def real_clip(data: Sequence[Path], sequences: Sequence[str], generator: Generator) -> Tensor:
    """A square window of a sequence, or of the sprite world, (FRAMES, 3, S, S): some of them stills or pans of stills.

    Flow at a pixel and its neighbours must not betray that a fault's warp has resampled the picture, so real clips are
    resampled too, by a warp that does not change in time.
    """
    size = _one_of(SIZES, generator)
    clip = footage(data, sequences, size, generator)
    if _chance(COLLAGE_SHARE, generator):
        clip = collage(clip, footage(data, sequences, size, generator), generator)
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


def footage(data: Sequence[Path], sequences: Sequence[str], size: int, generator: Generator) -> Tensor:
    """A window of a sequence, which is in one of the folders `data`, or of the sprite world."""
    if _chance(SPRITE_SHARE, generator):
        clip = world.render(world.random_clip(generator, fault_share=0))[0][:FRAMES]
        return F.interpolate(clip, size=(size, size), mode="bilinear", antialias=True)
    sequence = _one_of(sequences, generator)
    return window(next(folder / sequence for folder in data if (folder / sequence).is_dir()), size, generator)


def collage(back: Tensor, front: Tensor, generator: Generator) -> Tensor:
    """A piece of one clip that moves evenly over another: motion with hard edges that is no fault."""
    mask = blob(front, generator).expand(len(front), 1, -1, -1)
    time = torch.linspace(-1, 1, len(front)).view(-1, 1, 1, 1)
    speed, turn = torch.randn(2, 1, 2, 1, 1, generator=generator)
    path = (0.15 * speed * time + 0.05 * turn * time.square()) * front.shape[-1]
    moved = displace(torch.cat((front, mask), dim=1), path)
    return torch.lerp(back, moved[:, :3], moved[:, 3:].clamp(0, 1))


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


def draw_rows(frames: int, count: int, generator: Generator) -> list[list[int]]:
    """Frames in a row, equally far apart, that FLOWS flows are measured between."""
    rows = []
    for _ in range(count):
        gap = _one_of(GAPS, generator)
        first = int((frames - FLOWS * gap) * torch.rand((), generator=generator))
        rows.append([first + k * gap for k in range(FLOWS + 1)])
    return rows


@torch.no_grad()
def measure(clip: Tensor, rows: Sequence[Sequence[int]], flow_model: FlowModel) -> Tensor:
    """Flow along rows of frames, (P, 2 * FLOWS, GRID, GRID), px of the grid."""
    frames = clip[[frame for row in rows for frame in row]]
    return to_grid(flow_model(*ends(frames, rows))).view(len(rows), -1, GRID, GRID)


def to_grid(flow: Tensor) -> Tensor:
    """Flow (N, 2, S, S) in px -> (N, 2, GRID, GRID) in px of the grid."""
    scale = GRID / flow.shape[-1]
    if scale == 1:
        return flow
    return F.interpolate(flow, size=(GRID, GRID), mode="bilinear", antialias=True) * scale


def _compressed(clip: Tensor, quality: int | None) -> Tensor:
    return clip if quality is None else compressed(clip, quality)


def _compression(generator: Generator) -> int | None:
    return None if _chance(0.4, generator) else 40 + int(55 * torch.rand((), generator=generator))


def _chance(share: float, generator: Generator) -> bool:
    return torch.rand((), generator=generator).item() < share


def _one_of(choices: Sequence, generator: Generator):
    return choices[int(torch.randint(len(choices), (), generator=generator))]


@functools.cache
def loaded(flow_model: str) -> FlowModel:
    torch.set_num_threads(1)
    return load_flow_model(flow_model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/general"))
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sequences", nargs="+", default=list(TRAINING_SEQUENCES))
    parser.add_argument("--flow-model", choices=available_flow_models(), default="lucas_kanade_coarse")
    parser.add_argument("--demo", type=int, default=0, help="seeds of the demo model and its world")
    parser.add_argument("--demo-weights", type=Path, default=Path("weights/demo_video_model.safetensors"))
    args = parser.parse_args()
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        _keep(
            args.out / "flows" / f"{seed:06d}.safetensors",
            lambda seed=seed: flows_of_seed(seed, args.data, args.sequences, loaded(args.flow_model)),
        )
    if not args.demo:
        return
    pipeline = DemoPipeline(load_demo_weights(args.demo_weights))
    for seed in range(DEMO_SEED, DEMO_SEED + args.demo):
        _keep(
            args.out / "flows" / f"demo_{seed}.safetensors",
            lambda seed=seed: demo_flows(seed, pipeline, loaded(args.flow_model)),
        )


def _keep(file: Path, make: Callable[[], dict[str, Tensor]]) -> None:
    """Writes flows to a file unless it is there."""
    if not file.exists():
        write_safetensors({name: flow.half() for name, flow in make().items()}, file, {})


if __name__ == "__main__":
    main()
