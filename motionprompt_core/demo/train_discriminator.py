"""Trains the demo's flow discriminator: rendered clips are real, the demo model's own videos are generated.

    python -m motionprompt_core.demo.train_discriminator --run runs/demo --clips 240
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..discriminator import DiscriminatorConfig, save_discriminator
from ..flow import FlowModel, load_flow_model
from ..training.discriminator import train_discriminator
from ..training.flows import extract_flows
from . import world
from .checkpoint import load_demo_weights
from .pipeline import DemoPipeline

FIRST_SEED = 10_000  # evaluation uses seeds from 50,000 on
GAPS = (1, 2, 3)
STEPS = (1, 2, 3, 4, 5, 6, 8, 10)  # of 20: where estimates are judged; the finished video is added
ESTIMATES_PER_CLIP, PAIRS_PER_ESTIMATE, PAIRS_OF_FINISHED = 4, 3, 6
CONFIG = DiscriminatorConfig(
    trained_on="sprite world: rendered clips against videos of the demo model, finished and as Tweedie estimates",
    family="demo",
)


@functools.cache
def networks(weights: str) -> tuple[FlowModel, DemoPipeline]:
    """Flow model and demo model, loaded once in each worker."""
    torch.set_num_threads(1)
    return load_flow_model("rife_v4.0"), DemoPipeline(load_demo_weights(weights))


@torch.no_grad()
def flows_of_seed(job: tuple[int, str]) -> tuple[int, dict[str, Tensor]]:
    """Flows (P, 2, 128, 128) of a rendered clip and of a generated one with the same caption.

    Both are looked at finished and as Tweedie's estimates at a few noise levels: the guidance judges estimates, whose
    blur must not tell the classes apart. The rendered clip's estimates are those of the clip noised to that level.
    """
    seed, weights = job
    flow, pipeline = networks(weights)
    generator = torch.Generator().manual_seed(seed)
    clip = world.random_clip(generator, fault_share=0)
    prompt = world.caption(clip)
    context = pipeline.embed(prompt)
    autoencoder = pipeline.weights.autoencoder
    real = autoencoder.encode(world.render(clip)[0] * 2 - 1) * autoencoder.scale
    chosen = {STEPS[i] for i in torch.randperm(len(STEPS), generator=generator)[:ESTIMATES_PER_CLIP].tolist()}
    estimates: list[tuple[int, Tensor, Tensor]] = []

    def keep(step: int, t: int, x0: Tensor) -> None:
        if step in chosen:
            a = pipeline.alphas[t]
            noised = a.sqrt() * real + (1 - a).sqrt() * torch.randn(real.shape, generator=generator)
            estimates.append((t, pipeline.predict_x0(noised, t, context), x0))

    finished, _ = pipeline.sample(prompt, seed, on_estimate=keep)
    flows: dict[str, list[Tensor]] = {"real": [], "fake": []}
    levels: list[int] = []

    def add(level: int, count: int, real_video: Tensor, fake_video: Tensor) -> None:
        videos = [real_video.clamp(0, 1), fake_video.clamp(0, 1)]
        found = [extract_flows(flow, [video], GAPS, pairs_per_clip=count, seed=seed + level)[0] for video in videos]
        flows["real"].append(found[0].half())
        flows["fake"].append(found[1].half())
        levels.extend([level] * len(found[0]))

    add(0, PAIRS_OF_FINISHED, pipeline.decode(real), finished)  # decoded: the codec's marks are on both sides
    for t, of_real, of_fake in estimates:
        add(t, PAIRS_PER_ESTIMATE, pipeline.decode(of_real), pipeline.decode(of_fake))
    return seed, {**{key: torch.cat(parts) for key, parts in flows.items()}, "level": torch.tensor(levels)}


def collect(run: Path, weights: str, clips: int, workers: int) -> None:
    """Adds the flows of seeds that are not there yet to the run's cache, a file a seed."""
    folder = run / "flows"
    folder.mkdir(exist_ok=True)
    jobs = [(seed, weights) for seed in range(FIRST_SEED, FIRST_SEED + clips)
            if not (folder / f"{seed}.safetensors").exists()]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for number, (seed, flows) in enumerate(pool.imap_unordered(flows_of_seed, jobs), start=1):
            part = folder / f"{seed}.part"
            save_file(flows, part)
            part.rename(folder / f"{seed}.safetensors")
            if number % 10 == 0:
                print(f"{number} of {len(jobs)} clips", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--weights", default="weights/demo_video_model.safetensors")
    parser.add_argument("--out", type=Path, default=Path("weights/demo_discriminator.safetensors"))
    parser.add_argument("--clips", type=int, default=240, help="how many seeds; 0 trains on those in the run")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if args.clips:
        collect(args.run, args.weights, args.clips, args.workers)
    pairs = [load_file(path) for path in sorted((args.run / "flows").glob("*.safetensors"))]
    real, fake = ([pair[key].float() for pair in pairs] for key in ("real", "fake"))
    result = train_discriminator(
        real, fake, CONFIG, epochs=args.epochs, blur=1.5, noise=0.1, label_smoothing=0.1,
        on_epoch=lambda epoch: print(json.dumps(epoch.to_dict()), flush=True),
    )
    save_discriminator(
        result.model, args.out, auroc=result.best.auroc, accuracy=result.best.accuracy, clips=len(pairs),
        license="GPL-3.0",
    )


if __name__ == "__main__":
    main()
