"""Does the guidance help? The demo model with MotionPrompt against three controls, paired by prompt and seed.

    python -m motionprompt_core.demo.evaluate --seeds 32 --out output/evidence

Arms: the plain prompt; the same tokens left unoptimised; a well-chosen fixed word; MotionPrompt. Results go to
results.jsonl as they come (a second start goes on from there), then to summary.json and summary.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch

from ..discriminator import FlowDiscriminator, load_discriminator
from ..flow import FlowModel, load_flow_model
from ..metrics import evaluate_video
from ..settings import GuidanceSettings
from ..statistics import paired_bootstrap
from . import truth, world
from .checkpoint import load_demo_weights
from .pipeline import DemoPipeline

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
FIXED_WORD = "smooth"
ARMS = ("motionprompt", "plain", "unoptimised", "fixed word")
# metric -> +1 if higher is better, -1 if lower is, 0 if it should merely stay
METRICS = {
    "discriminator_score": 1, "temporal_flickering": 1, "motion_smoothness": 1, "warping_error": -1,
    "flow_acceleration": -1, "jitter": -1, "permanence": 1, "dynamic_degree": 0, "flow_magnitude": 0, "sharpness": 0,
    "colour": 0, "ground": 0, "shape": 0, "direction": 0,
}
FIRST_SEED = 50_000  # the discriminator's training begins at 10,000


def sample_arm(pipeline: DemoPipeline, arm: str, prompt: str, seed: int, settings: GuidanceSettings, words: str):
    """One video of one arm, (T, 3, H, W)."""
    if arm == "plain":
        return pipeline.sample(prompt, seed)[0]
    if arm == "fixed word":
        return pipeline.sample(f"{prompt} {FIXED_WORD}", seed)[0]
    if arm == "motionprompt":
        return pipeline.sample(prompt, seed, settings, words)[0]
    return pipeline.sample(prompt, seed, settings, words, learn=False)[0]


@functools.cache
def networks(weights: str) -> tuple[DemoPipeline, FlowModel, FlowDiscriminator]:
    """The demo model, and what guides and judges it, loaded once in each worker."""
    torch.set_num_threads(1)
    folder, flow = Path(weights), load_flow_model("rife_v4.0")
    discriminator = load_discriminator(folder / "demo_discriminator.safetensors")
    pipeline = DemoPipeline(load_demo_weights(folder / "demo_video_model.safetensors"), flow, discriminator)
    return pipeline, flow, discriminator


def evaluate_seed(job: tuple[int, dict[str, Any], str, str, list[str]]) -> list[dict[str, Any]]:
    """All arms of one seed: the seed draws the prompt too."""
    seed, overrides, words, weights, arms = job
    pipeline, flow, discriminator = networks(weights)
    clip = world.random_clip(torch.Generator().manual_seed(seed), fault_share=0)
    prompt, settings = world.caption(clip), GuidanceSettings(**overrides)
    rows = []
    for arm in arms:
        start = time.thread_time()
        video = sample_arm(pipeline, arm, prompt, seed, settings, words)
        seconds = time.thread_time() - start
        reading = truth.read(video)
        rows.append({
            "seed": seed, "arm": arm, "prompt": prompt, "seconds": seconds,
            **evaluate_video(video, flow, discriminator).to_dict(),
            **{key: float(value) for key, value in reading.matches(clip).items()},
            "jitter": reading.jitter, "permanence": reading.permanence,
        })
    return rows


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of every arm, and MotionPrompt's paired difference to each control with its 95 % bootstrap interval."""
    arms: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        arms.setdefault(row["arm"], {})[row["seed"]] = row
    seeds = sorted(set.intersection(*(set(found) for found in arms.values())))
    table: dict[str, Any] = {"seeds": len(seeds), "means": {}, "differences": {}}
    for arm, found in arms.items():
        keys = (*METRICS, "seconds")
        table["means"][arm] = {key: sum(found[seed][key] for seed in seeds) / len(seeds) for key in keys}
    for arm in arms:
        if arm == "motionprompt" or "motionprompt" not in arms:
            continue
        table["differences"][arm] = {
            key: paired_bootstrap(
                [arms["motionprompt"][seed][key] for seed in seeds], [arms[arm][seed][key] for seed in seeds]
            )._asdict()
            for key in METRICS
        }
    return table


def markdown(summary: dict[str, Any]) -> str:
    """The summary as two tables."""
    arms = [arm for arm in ARMS if arm in summary["means"]]
    lines = [f"{summary['seeds']} prompts and seeds.", "", "| mean | " + " | ".join(arms) + " |",
             "|---|" + "---|" * len(arms)]
    for key in (*METRICS, "seconds"):
        lines.append(f"| {key} | " + " | ".join(f"{summary['means'][arm][key]:.4f}" for arm in arms) + " |")
    controls = [arm for arm in arms if arm in summary["differences"]]
    lines += ["", "MotionPrompt minus control, mean [95 % interval]; **bold**: better, the interval leaves out 0.", "",
              "| | better is | " + " | ".join(controls) + " |", "|---|---|" + "---|" * len(controls)]
    for key, sign in METRICS.items():
        cells = []
        for arm in controls:
            d = summary["differences"][arm][key]
            cell = f"{d['mean']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]"
            better = sign * d["low"] > 0 and sign * d["high"] > 0
            cells.append(f"**{cell}**" if better else cell)
        lines.append(f"| {key} | {('lower', 'unchanged', 'higher')[sign + 1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--out", type=Path, default=Path("output/evidence"))
    parser.add_argument("--weights", default=str(WEIGHTS))
    parser.add_argument("--words", default="authentic", help="initial words of the tokens")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--settings", type=json.loads, default={}, help="guidance settings as JSON; else the defaults")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds is {args.seeds}; an interval needs at least 2")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {row["seed"] for row in rows}
    wanted = range(args.first_seed, args.first_seed + args.seeds)
    jobs = [(seed, args.settings, args.words, args.weights, args.arms) for seed in wanted if seed not in done]
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool, path.open("a") as file:
        for number, found in enumerate(pool.imap(evaluate_seed, jobs), start=1):
            rows += found
            file.write("".join(json.dumps(row) + "\n" for row in found))
            file.flush()
            print(f"\r{number} of {len(jobs)} seeds", end="", flush=True)
    summary = {**summarise(rows), "settings": args.settings, "words": args.words}
    (args.out / "summary.json").write_text(json.dumps(summary, indent=2))
    (args.out / "summary.md").write_text(markdown(summary))
    print("\n" + markdown(summary))


if __name__ == "__main__":
    main()
