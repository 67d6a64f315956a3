"""Trains the demo's flow discriminator: steady motion is real; faulty footage and the demo model's videos are not.

    python -m motionprompt_core.demo.train_discriminator --run runs/demo --clips 240
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..discriminator import DiscriminatorConfig, save_discriminator
from ..files import write_safetensors
from ..flow import FlowModel, load_flow_model
from ..training.discriminator import ROBUST, TrainingResult, train_discriminator
from . import world
from .checkpoint import load_demo_weights
from .pipeline import DemoPipeline

FIRST_SEED = 10_000  # evaluation uses seeds from 50,000 on
GAPS = (1, 2, 3)
STEPS = tuple(range(8, 19))  # of 20: before them, estimates of steady and of faulty footage look alike
ESTIMATES_PER_CLIP, PAIRS_PER_ESTIMATE, PAIRS = 5, 3, 6
SIDES = ("real", "faulty", "generated")
CONFIG = DiscriminatorConfig(
    trained_on="sprite world: rendered clips without faults against rendered clips with faults and videos of the demo "
    "model, both finished and as Tweedie estimates of the sampling steps",
    family="demo",
    flow_model="lucas_kanade",
)


@functools.cache
def networks(weights: str) -> tuple[FlowModel, DemoPipeline]:
    """Flow model and demo model, loaded once in each worker."""
    torch.set_num_threads(1)
    return load_flow_model(CONFIG.flow_model), DemoPipeline(load_demo_weights(weights))


def flows_of_pairs(flow: FlowModel, pipeline: DemoPipeline, x0: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Flows (count, 2, 128, 128) between random frames of clean latents (F, 4, h, w); only those are decoded."""
    gaps = torch.tensor(GAPS)[torch.randint(len(GAPS), (count,), generator=generator)]
    first = (torch.rand(count, generator=generator) * (len(x0) - gaps)).long()
    frames = pipeline.decode(torch.cat((x0[first], x0[first + gaps]))).clamp(0, 1)
    return flow(*frames.chunk(2)).half()


def faulty_twin(clip: world.Clip, generator: torch.Generator) -> world.Clip:
    """The same clip with faults such as the footage has."""
    faults = world.random_clip(generator, fault_share=1)
    return replace(clip, jitter=faults.jitter, pulse=faults.pulse, flicker=faults.flicker)


@torch.no_grad()
def flows_of_seed(seed: int, weights: str) -> dict[str, Tensor]:
    """Flows (P, 2, 128, 128) under the names SIDE.finished and SIDE.STEP, of the same steps for each side.

    The guidance judges Tweedie's estimates, whose blur looks like calm motion. So every side has them, of the same
    steps and mixed with the negative prompt as the picture will be: the generated side on the way to its video, the
    others after noise was put on a rendered clip. What still tells them apart are the faults of the motion.
    """
    flow, pipeline = networks(weights)
    generator = torch.Generator().manual_seed(seed)
    clip = world.random_clip(generator, fault_share=0)
    prompt, autoencoder = world.caption(clip), pipeline.weights.autoencoder
    context, negative = pipeline.embed(prompt), pipeline.embed(pipeline.negative)
    chosen = sorted(STEPS[i] for i in torch.randperm(len(STEPS), generator=generator)[:ESTIMATES_PER_CLIP].tolist())
    flows: dict[str, Tensor] = {}

    def add(side: str, step: int | None, x0: Tensor) -> None:
        name, count = ("finished", PAIRS) if step is None else (f"{step:02}", PAIRS_PER_ESTIMATE)
        flows[f"{side}.{name}"] = flows_of_pairs(flow, pipeline, x0, count, generator)

    for side, shown in (("real", clip), ("faulty", faulty_twin(clip, generator))):
        latents = autoencoder.encode(world.render(shown)[0] * 2 - 1) * autoencoder.scale
        add(side, None, latents)
        for step in chosen:
            add(side, step, pipeline.estimate(latents, pipeline.timesteps()[step], context, negative, generator))

    def keep(step: int, t: int, x0: Tensor) -> None:
        if step in chosen:
            add("generated", step, x0)

    finished, _ = pipeline.denoise(pipeline.noise(seed), prompt, seed, on_estimate=keep)
    add("generated", None, finished)
    return flows


def _collect_seed(job: tuple[int, str, Path]) -> None:
    seed, weights, folder = job
    write_safetensors(flows_of_seed(seed, weights), folder / f"{seed}.safetensors", {})


def collect(folder: Path, weights: str, clips: int, workers: int, first_seed: int = FIRST_SEED) -> None:
    """Adds the flows of seeds that are not there yet to the folder, a file a seed."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(seed, weights, folder) for seed in range(first_seed, first_seed + clips)
            if not (folder / f"{seed}.safetensors").exists()]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for number, _ in enumerate(pool.imap_unordered(_collect_seed, jobs), start=1):
            if number % 10 == 0:
                print(f"{number} of {len(jobs)} clips", flush=True)


def sides(files: Sequence[Path], estimates: bool = True) -> tuple[list[Tensor], list[Tensor]]:
    """Flows clip by clip, the real ones and the others; as many of each side and of each kind of fake.

    Args:
        files: from `collect`.
        estimates: with Tweedie's estimates, else finished videos alone.
    """
    real, fake = [], []
    for file in files:
        flows = load_file(file)
        names = [name.split(".")[1] for name in flows if name.startswith("real.")]
        names = [name for name in names if estimates or name == "finished"]
        real.append(torch.cat([flows[f"real.{name}"] for name in names]).float())
        # Of each name a half from either kind of fake, by turns.
        kinds = [torch.cat([flows[f"{kind}.{name}"] for name in names]).float() for kind in SIDES[1:]]
        turn = (torch.arange(len(kinds[0])) + int(file.stem)) % 2
        fake.append(torch.where(turn.view(-1, 1, 1, 1) == 0, *kinds))
    return real, fake


def train(files: Sequence[Path], config: DiscriminatorConfig, epochs: int, estimates: bool = True,
          checkpoint: Path | None = None) -> TrainingResult:
    """The discriminator of some seeds' flows; prints each epoch."""
    return train_discriminator(
        *sides(files, estimates), config, epochs=epochs, checkpoint=checkpoint, **ROBUST,
        on_epoch=lambda epoch: print(json.dumps(epoch.to_dict()), flush=True),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--weights", default="weights/demo_video_model.safetensors")
    parser.add_argument("--out", type=Path, default=Path("weights/demo_discriminator.safetensors"))
    parser.add_argument("--clips", type=int, default=240, help="how many seeds; 0 trains on those in the run")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    folder = args.run / "flows"
    if args.clips:
        collect(folder, args.weights, args.clips, args.workers)
    files = sorted(folder.glob("*.safetensors"))
    result = train(files, CONFIG, args.epochs)
    save_discriminator(
        result.model, args.out, auroc=result.best.auroc, accuracy=result.best.accuracy, clips=len(files),
        license="GPL-3.0",
    )


if __name__ == "__main__":
    main()
