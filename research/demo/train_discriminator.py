"""Trains the demo's flow discriminator: steady motion is real; faulty footage and the demo model's videos are not.

python -m research.demo.train_discriminator --run runs/demo --clips 240
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from motionprompt_core.demo.checkpoint import load_demo_weights
from motionprompt_core.discriminator.model import DiscriminatorConfig, save_discriminator
from motionprompt_core.discriminator.train import ROBUST, TrainingResult, train_discriminator
from motionprompt_core.flow import load_flow_model
from motionprompt_core.flow.base import FlowModel
from motionprompt_core.media.files import write_safetensors
from motionprompt_tools import world

from .pipeline import DemoPipeline

FIRST_SEED = 10_000  # evaluation uses seeds from 50,000 on
GAPS, PAIRS = (1, 2, 3), 4
STEPS = (6, 8, 10, 12, 14, 16)  # of 20
TRAINED = ("12", "14", "16", "finished")  # earlier estimates of steady and of faulty footage look alike
SIDES = ("real", "faulty", "generated")
CONFIG = DiscriminatorConfig(
    img_size=64,
    patch_size=8,
    embed_dim=64,
    depth=2,
    num_heads=4,
    mlp_hidden=64,
    flow_scale=128.0,
    trained_on="sprite world: rendered clips without faults against rendered clips with faults and videos of the demo "
    "model, finished and as Tweedie estimates of the later sampling steps",
    family="demo",
    flow_model="lucas_kanade",
)
TRAINING: dict[str, Any] = {**ROBUST, "lr": 4e-3, "noise": 0.03, "blur": 0.8}


@functools.cache
def demo_model(weights: str) -> DemoPipeline:
    """Loaded once in each worker."""
    torch.set_num_threads(1)
    return DemoPipeline(load_demo_weights(weights))


def faulty_twin(clip: world.Clip, generator: torch.Generator) -> world.Clip:
    """The same clip with faults such as the footage has."""
    faults = world.random_clip(generator, fault_share=1)
    return replace(clip, jitter=faults.jitter, pulse=faults.pulse, flicker=faults.flicker)


@torch.no_grad()
def estimates_of_seed(pipeline: DemoPipeline, seed: int) -> dict[str, Tensor]:
    """Clean latents (F, 4, h, w) under the names SIDE.finished and SIDE.STEP.

    The guidance judges Tweedie's estimates, whose blur looks like calm motion. So every side has them, of the same
    steps and mixed with the negative prompt as the picture will be: the generated side on the way to its video, the
    others after noise was put on a rendered clip. What still tells them apart are the faults of the motion.
    """
    generator = torch.Generator().manual_seed(seed)
    clip = world.random_clip(generator, fault_share=0)
    prompt = world.caption(clip)
    context, negative = pipeline.embed(prompt), pipeline.embed(pipeline.negative)
    found: dict[str, Tensor] = {}
    for side, shown in (("real", clip), ("faulty", faulty_twin(clip, generator))):
        latents = pipeline.encode(world.render(shown)[0])
        found[f"{side}.finished"] = latents
        for step in STEPS:
            t = pipeline.timesteps()[step]
            found[f"{side}.{step:02}"] = pipeline.estimate(latents, t, context, negative, generator)

    def keep(step: int, t: int, x0: Tensor) -> None:
        if step in STEPS:
            found[f"generated.{step:02}"] = x0.clone()

    found["generated.finished"], _ = pipeline.denoise(pipeline.noise(seed), prompt, seed, on_estimate=keep)
    return {name: latents.half().contiguous() for name, latents in found.items()}


def flows_of_pairs(flow: FlowModel, pipeline: DemoPipeline, x0: Tensor, generator: torch.Generator) -> Tensor:
    """Flows (PAIRS, 2, 128, 128) between random frames of clean latents (F, 4, h, w); only those are decoded."""
    gaps = torch.tensor(GAPS)[torch.randint(len(GAPS), (PAIRS,), generator=generator)]
    first = (torch.rand(PAIRS, generator=generator) * (len(x0) - gaps)).long()
    frames = pipeline.decode(torch.cat((x0[first], x0[first + gaps]))).clamp(0, 1)
    return flow(*frames.chunk(2)).half()


@torch.no_grad()
def write_flows(seed: int, weights: str, run: Path) -> None:
    """Estimates and flows of a seed, each written unless it is there: another flow model needs no sampling."""
    pipeline, flow = demo_model(weights), load_flow_model(CONFIG.flow_model)
    estimates, flows = (run / folder / f"{seed}.safetensors" for folder in ("estimates", "flows"))
    if not estimates.exists():
        write_safetensors(estimates_of_seed(pipeline, seed), estimates, {})
    if not flows.exists():
        generator = torch.Generator().manual_seed(seed)
        latents = load_file(estimates)
        names = [f"{side}.{name}" for side in SIDES for name in (*(f"{step:02}" for step in STEPS), "finished")]
        write_safetensors(
            {name: flows_of_pairs(flow, pipeline, latents[name].float(), generator) for name in names},
            flows,
            {},
        )


def _write_flows(job: tuple[int, str, Path]) -> None:
    write_flows(*job)


def collect(run: Path, weights: str, clips: int, workers: int, first_seed: int = FIRST_SEED) -> list[Path]:
    """The files with the flows of so many seeds; those that are there are not made again."""
    for folder in ("estimates", "flows"):
        (run / folder).mkdir(parents=True, exist_ok=True)
    files = [run / "flows" / f"{seed}.safetensors" for seed in range(first_seed, first_seed + clips)]
    jobs = [(int(file.stem), weights, run) for file in files if not file.exists()]
    if jobs:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for number, _ in enumerate(pool.imap_unordered(_write_flows, jobs), start=1):
                if number % 10 == 0:
                    print(f"{number} of {len(jobs)} clips", flush=True)
    return files


def sides(files: Sequence[Path], names: Sequence[str] = TRAINED) -> tuple[list[Tensor], list[Tensor]]:
    """Flows clip by clip, the real ones and the others: as many of each side, half of the fakes of either kind.

    Args:
        files: from `collect`. names: which of a clip's estimates; ("finished",) for the video alone.
    """
    real, fake = [], []
    for number, file in enumerate(files):
        flows = load_file(file)
        real.append(torch.cat([flows[f"real.{name}"] for name in names]).float())
        kinds = [torch.cat([flows[f"{kind}.{name}"] for name in names]).float() for kind in SIDES[1:]]
        turn = (torch.arange(len(kinds[0])) + number) % 2
        fake.append(torch.where(turn.view(-1, 1, 1, 1) == 0, *kinds))
    return real, fake


def train(
    files: Sequence[Path],
    config: DiscriminatorConfig,
    epochs: int,
    names: Sequence[str] = TRAINED,
    checkpoint: Path | None = None,
) -> TrainingResult:
    """The discriminator of some seeds' flows; prints each epoch."""
    return train_discriminator(
        *sides(files, names),
        config,
        epochs=epochs,
        checkpoint=checkpoint,
        **TRAINING,
        on_epoch=lambda epoch: print(json.dumps(epoch.to_dict()), flush=True),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--weights", default="weights/demo_video_model.safetensors")
    parser.add_argument("--out", type=Path, default=Path("weights/demo_discriminator.safetensors"))
    parser.add_argument("--clips", type=int, default=100, help="how many seeds")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    files = collect(args.run, args.weights, args.clips, args.workers)
    result = train(files, CONFIG, args.epochs, checkpoint=args.run / "discriminator.training.safetensors")
    save_discriminator(
        result.model,
        args.out,
        auroc=result.best.auroc,
        accuracy=result.best.accuracy,
        clips=len(files),
        license="GPL-3.0",
    )


if __name__ == "__main__":
    main()
