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
STEPS = tuple(range(2, 16))  # of 20: where the guidance may judge estimates
ESTIMATES_PER_CLIP, PAIRS_PER_ESTIMATE, PAIRS = 3, 3, 6
CONFIG = DiscriminatorConfig(
    trained_on="sprite world: rendered clips without faults against videos of the demo model, both finished and as "
    "Tweedie estimates of the sampling steps",
    family="demo",
)


@functools.cache
def networks(weights: str) -> tuple[FlowModel, DemoPipeline]:
    """Flow model and demo model, loaded once in each worker."""
    torch.set_num_threads(1)
    return load_flow_model("rife_v4.0"), DemoPipeline(load_demo_weights(weights))


@torch.no_grad()
def flows_of_seed(job: tuple[int, str]) -> tuple[int, dict[str, Tensor]]:
    """Flows (P, 2, 128, 128) of a rendered clip and of a generated one with the same caption, as many of each.

    The guidance judges Tweedie's estimates, whose blur would look like calm motion. So both sides have them, of the
    same steps: the generated side on the way to its video, the real side after noise was put on the rendered clip. What
    still tells them apart are the faults of the motion.
    """
    seed, weights = job
    flow, pipeline = networks(weights)
    generator = torch.Generator().manual_seed(seed)
    clip = world.random_clip(generator, fault_share=0)
    prompt, autoencoder = world.caption(clip), pipeline.weights.autoencoder
    latents = autoencoder.encode(world.render(clip)[0] * 2 - 1) * autoencoder.scale
    chosen = sorted(STEPS[i] for i in torch.randperm(len(STEPS), generator=generator)[:ESTIMATES_PER_CLIP].tolist())
    fake: list[Tensor] = []

    def keep(step: int, t: int, x0: Tensor) -> None:
        if step in chosen:
            fake.append(pipeline.decode(x0).clamp(0, 1))

    finished, _ = pipeline.sample(prompt, seed, on_estimate=keep)
    context = pipeline.embed(prompt)
    real = [pipeline.estimate(latents, pipeline.timesteps()[step], context, generator) for step in chosen]
    flows = {}
    for side, video, estimates in (("real", pipeline.decode(latents), real), ("fake", finished, fake)):
        found = extract_flows(flow, [video.clamp(0, 1)], GAPS, pairs_per_clip=PAIRS, seed=seed)
        found += extract_flows(flow, [x.clamp(0, 1) for x in estimates], GAPS,
                               pairs_per_clip=PAIRS_PER_ESTIMATE, seed=seed)
        flows[side] = torch.cat(found).half()
    return seed, {**flows, "steps": torch.tensor([20] * PAIRS + [s for s in chosen for _ in range(PAIRS_PER_ESTIMATE)])}


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
