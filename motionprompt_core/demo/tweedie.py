"""Is a discriminator better that has seen Tweedie's estimates? Trained with and without them, on the demo model.

    python -m motionprompt_core.demo.tweedie --out output/tweedie --train-seeds 64 --seeds 64

The paper trains on finished videos but judges blurry estimates. Two discriminators are trained on as many flows:
`clean` on finished videos, `aware` on those and estimates of the guided steps; the real side is the same. Then
AUROC at each sampling step on held-out seeds (steps.json), and videos guided by either, paired by prompt and seed
(results.jsonl, summary.json). Stopped at any moment, the same command goes on.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..discriminator import DiscriminatorConfig, FlowDiscriminator, load_discriminator, save_discriminator
from ..files import write_safetensors
from ..flow import FlowModel, load_flow_model
from ..metrics import evaluate_video
from ..settings import GuidanceSettings
from ..statistics import bootstrap_auroc, paired_bootstrap
from ..training.discriminator import ROBUST, train_discriminator
from ..training.flows import extract_flows
from . import truth, world
from .checkpoint import load_demo_weights
from .pipeline import DemoPipeline

WEIGHTS = Path(__file__).resolve().parents[2] / "weights" / "demo_video_model.safetensors"
FIRST_TRAINING_SEED, FIRST_SEED = 30_000, 60_000
GAPS, PAIRS = (1, 2, 3), 6
STEPS = tuple(range(1, 10))  # of 20: what the guidance judges, and the step after
ARMS = ("aware", "clean", "plain")
SETTINGS = {
    "iterations": 3, "window_start": 0.1, "window_end": 0.45, "learning_rate": 0.03, "lambda_tv": 0.1,
    "lambda_reg": 0.02, "max_gap": 3, "adversarial": "non_saturating", "outside_window": "tokens",
}
# metric -> +1 if higher is better, -1 if lower is, 0 if it should merely stay
METRICS = {
    "jitter": -1, "permanence": 1, "temporal_flickering": 1, "warping_error": -1, "flow_acceleration": -1,
    "flow_magnitude": 0, "phi_aware": 1, "phi_clean": 1, "seconds": -1,
}


@functools.cache
def models(weights: str) -> tuple[FlowModel, DemoPipeline]:
    torch.set_num_threads(1)
    flow = load_flow_model("rife_v4.0")
    return flow, DemoPipeline(load_demo_weights(weights), flow)


@torch.no_grad()
def collect(job: tuple[int, str, str]) -> None:
    """Flows of one seed: a rendered clip, the finished video, and the estimate of each step."""
    seed, weights, folder = job
    flow, pipeline = models(weights)
    clip = world.random_clip(torch.Generator().manual_seed(seed), fault_share=0)
    autoencoder, estimates = pipeline.weights.autoencoder, {}
    real = autoencoder.decode(autoencoder.encode(world.render(clip)[0] * 2 - 1)) / 2 + 0.5

    def keep(step: int, t: int, x0: Tensor) -> None:
        if step in STEPS:
            estimates[f"step.{step:02}"] = pipeline.decode(x0).clamp(0, 1)

    finished, _ = pipeline.sample(world.caption(clip), seed, on_estimate=keep)
    videos = {"real": real.clamp(0, 1), "finished": finished, **estimates}
    flows = {}
    for name, video in videos.items():
        (found,) = extract_flows(flow, [video], GAPS, pairs_per_clip=PAIRS if "." not in name else 2, seed=seed)
        flows[name] = found.half()
    write_safetensors(flows, Path(folder) / f"{seed}.safetensors", {})


def sides(files: Sequence[Path], aware: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Real and generated flows, clip by clip, the same number of each whether `aware` or not."""
    real, fake = [], []
    for file in files:
        flows = load_file(file)
        real.append(flows["real"].float())
        if aware:
            steps = torch.cat([flows[f"step.{step:02}"] for step in STEPS])
            generator = torch.Generator().manual_seed(int(file.stem))
            chosen = steps[torch.randperm(len(steps), generator=generator)[: PAIRS // 2]]
            fake.append(torch.cat((flows["finished"][: PAIRS - PAIRS // 2], chosen)).float())
        else:
            fake.append(flows["finished"].float())
    return real, fake


def train_both(files: Sequence[Path], out: Path, epochs: int) -> dict[str, FlowDiscriminator]:
    """Both discriminators, from their files if they are there."""
    found = {}
    for arm in ("aware", "clean"):
        path = out / f"{arm}.safetensors"
        if not path.is_file():
            config = DiscriminatorConfig(trained_on=f"sprite world against the demo model, {arm}", family="demo")
            real, fake = sides(files, arm == "aware")
            state = out / f"{arm}.training.safetensors"
            result = train_discriminator(real, fake, config, epochs=epochs, checkpoint=state, **ROBUST)
            save_discriminator(result.model, path, **result.best.to_dict())
        found[arm] = load_discriminator(path)
    return found


@torch.no_grad()
def by_step(discriminators: dict[str, FlowDiscriminator], files: Sequence[Path]) -> dict[str, Any]:
    """AUROC of either discriminator on seeds not trained on: estimates of each step, and finished videos, against real
    clips; a clip's score is the mean logit of its flows."""
    flows = [load_file(file) for file in files]
    table: dict[str, Any] = {"held_out_seeds": len(files)}
    for name in ("finished", *(f"step.{step:02}" for step in STEPS)):
        table[name] = {}
        for arm, model in discriminators.items():
            scores = [[model(clip[side].float()).mean().item() for clip in flows] for side in ("real", name)]
            table[name][arm] = bootstrap_auroc(scores[0], scores[1])
    return table


def compare(job: tuple[int, str, str, str, dict[str, Any]]) -> dict[str, Any]:
    """One video of one arm, measured."""
    seed, arm, weights, out, settings = job
    flow, pipeline = models(weights)
    found = {name: load_discriminator(Path(out) / f"{name}.safetensors") for name in ("aware", "clean")}
    pipeline.discriminator = found.get(arm)
    clip = world.random_clip(torch.Generator().manual_seed(seed), fault_share=0)
    started = time.perf_counter()
    video = pipeline.sample(world.caption(clip), seed, None if arm == "plain" else GuidanceSettings(**settings))[0]
    seconds, reading = time.perf_counter() - started, truth.read(video)
    row = {"seed": seed, "arm": arm, "seconds": seconds, "jitter": reading.jitter, "permanence": reading.permanence}
    measured = evaluate_video(video, flow, found["aware"]).to_dict()
    row |= {name: measured[name] for name in METRICS if name in measured}
    row["phi_aware"] = measured["discriminator_score"]
    row["phi_clean"] = evaluate_video(video, flow, found["clean"]).to_dict()["discriminator_score"]
    return row


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means, and paired differences with 95 % intervals, over the seeds that every arm has."""
    arms = {arm: {row["seed"]: row for row in rows if row["arm"] == arm} for arm in ARMS}
    seeds = sorted(set.intersection(*(set(found) for found in arms.values())))
    summary: dict[str, Any] = {"seeds": len(seeds), "means": {}, "differences": {}}
    for arm, found in arms.items():
        summary["means"][arm] = {name: sum(found[s][name] for s in seeds) / max(1, len(seeds)) for name in METRICS}
    for first, second in (("aware", "clean"), ("aware", "plain"), ("clean", "plain")):
        if len(seeds) > 1:
            summary["differences"][f"{first} - {second}"] = {
                name: paired_bootstrap([arms[first][s][name] for s in seeds], [arms[second][s][name] for s in seeds])
                ._asdict() for name in METRICS
            }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("output/tweedie"))
    parser.add_argument("--weights", default=str(WEIGHTS))
    parser.add_argument("--train-seeds", type=int, default=64, help="a quarter of them is held out")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=64, help="videos of each arm; 0 trains and measures AUROC only")
    parser.add_argument("--settings", type=json.loads, default={}, help="guidance settings as JSON, over the defaults")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    folder = args.out / "flows"
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{FIRST_TRAINING_SEED + i}.safetensors" for i in range(args.train_seeds)]
    results = args.out / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(row["seed"], row["arm"]) for row in rows}
    settings = {**SETTINGS, **args.settings}
    wanted = [(FIRST_SEED + i, arm) for i in range(args.seeds) for arm in ARMS]
    jobs = [(*key, args.weights, str(args.out), settings) for key in wanted if key not in done]
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        missing = [(int(file.stem), args.weights, str(folder)) for file in files if not file.is_file()]
        for number, _ in enumerate(pool.imap_unordered(collect, missing), start=1):
            print(f"\rflows: {number} of {len(missing)} seeds", end="", flush=True)
        held_out = max(1, len(files) // 4)
        discriminators = train_both(files[held_out:], args.out, args.epochs)
        steps = by_step(discriminators, files[:held_out])
        (args.out / "steps.json").write_text(json.dumps(steps, indent=2) + "\n")
        print(json.dumps(steps, indent=2), flush=True)
        with results.open("a") as file:
            for number, row in enumerate(pool.imap(compare, jobs), start=1):
                rows.append(row)
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(f"\rvideos: {number} of {len(jobs)}", end="", flush=True)
    summary = {**summarise(rows), "settings": settings}
    (args.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print("\n" + json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
