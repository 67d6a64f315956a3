"""Makes and measures the videos of a suite: in parallel, a JSON line each, resumable."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from motionprompt_core.demo.checkpoint import load_demo_weights
from motionprompt_core.discriminator.model import load_discriminator
from motionprompt_core.flow import load_flow_model
from motionprompt_core.guidance.settings import GuidanceSettings
from motionprompt_core.metrics.measure import measure_video
from motionprompt_core.metrics.video import flow_scores, video_flow
from motionprompt_tools import world

from ..demo import truth
from .cost import measure
from .suites import Suite, suite_variants
from .variants import Networks, Variant, clip_of

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
FIRST_SEED = 50_000  # the discriminator's training begins at 10,000, the choice of a word at 30,000
MODEL, DISCRIMINATOR = "demo_video_model.safetensors", "demo_discriminator.safetensors"


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the videos; a run goes on only with the one that it began with.

    Attributes:
        settings: guidance settings that differ from the defaults. words: initial words of the tokens.
        fixed_word: the control's. steps: DDIM steps. flow_model: the metrics'; the discriminator has its own.
        weights: folder with the demo model and its discriminator.
        other_discriminator: file of one that was trained on another model's videos; may be empty.
    """

    suite: Suite
    settings: dict[str, Any] = field(default_factory=dict)
    words: str = "authentic"
    fixed_word: str = "smooth"
    steps: int = 20
    flow_model: str = "lucas_kanade"
    weights: str = str(WEIGHTS)
    other_discriminator: str = ""

    def fingerprint(self) -> dict[str, Any]:
        """What decides a variant's video: not the suite, and what is in the files rather than where they are."""
        folder = Path(self.weights)
        files = {"model": folder / MODEL, "discriminator": folder / DISCRIMINATOR}
        if self.other_discriminator:
            files["other_discriminator"] = Path(self.other_discriminator)
        values = {k: v for k, v in asdict(self).items() if k not in ("suite", "weights", "other_discriminator")}
        values["sha256"] = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        return values


@dataclass(frozen=True)
class Job:
    """One video, or, without a seed, the cost of one."""

    config: RunConfig
    variant: str
    seed: int | None


def network_of(config: RunConfig) -> Networks:
    """The networks of a run, loaded once in each process, which then computes with one thread."""
    return _networks(config.weights, config.flow_model, config.steps, config.other_discriminator)


def prompt_of(seed: int) -> tuple[world.Clip, str]:
    """What a seed's video should show, and the prompt for it."""
    clip = clip_of(seed)
    return clip, world.caption(clip)


@functools.lru_cache(maxsize=1)
def _networks(weights: str, flow_model: str, steps: int, other: str) -> Networks:
    torch.set_num_threads(1)
    folder = Path(weights)
    judge = load_discriminator(folder / DISCRIMINATOR)
    return Networks(
        load_demo_weights(folder / MODEL),
        load_flow_model(judge.config.flow_model),
        judge,
        load_flow_model(flow_model),
        steps,
        {"other": load_discriminator(other)} if other else {},
    )


def run_job(job: Job) -> dict[str, Any]:
    """The job's line: metrics of the video, what the truth says of it, and times; or what such a video costs."""
    config = job.config
    networks = network_of(config)
    variants = suite_variants(config.suite, config.fixed_word, bool(config.other_discriminator))
    variant = next(variant for variant in variants if variant.name == job.variant)
    settings = GuidanceSettings.from_dict(config.settings)
    clip, prompt = prompt_of(job.seed or FIRST_SEED)
    if job.seed is None:
        return {
            "variant": variant.name,
            "seed": None,
            **measure(lambda: variant.sample(networks, prompt, FIRST_SEED, settings, config.words)),
        }
    wall, cpu = time.perf_counter(), time.process_time()
    video = variant.sample(networks, prompt, job.seed, settings, config.words)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    reading, flow = truth.read(video), video_flow(video, networks.flow)
    return {
        "variant": variant.name,
        "seed": job.seed,
        "prompt": prompt,
        **measure_video(video, networks.measure).metrics.to_dict(),
        "discriminator_score": float(flow_scores(flow, networks.flow, networks.discriminator).mean()),
        **{key: float(value) for key, value in reading.matches(clip).items()},
        "jitter": reading.jitter,
        "pulsation": reading.area_variation,
        "exposure": reading.exposure,
        "permanence": reading.permanence,
        "sprite_speed": reading.speed,
        "wall_seconds": wall,
        "cpu_seconds": cpu,
    }


def read_lines(path: Path, fingerprint: dict[str, Any]) -> list[dict[str, Any]]:
    """The results in a file, an unfinished last line cut off.

    Raises:
        ValueError: they are of another run.
    """
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    whole = [json.loads(line) for line in lines[:-1]]  # what follows the last line end was being written
    if not whole:
        return []
    if whole[0].get("config") != fingerprint:
        found = whole[0].get("config", {})
        other = [key for key in fingerprint if found.get(key) != fingerprint[key]]
        raise ValueError(
            f"{path} holds results of another run, which differs in {', '.join(other)}. Choose another --out, or "
            "repeat the command that it was begun with."
        )
    return whole[1:]


def run_suite(
    config: RunConfig,
    variants: list[Variant],
    seeds: int,
    first_seed: int,
    out: Path,
    workers: int = 2,
    cost: bool = True,
) -> list[dict[str, Any]]:
    """All lines of a suite, from `out`/results.jsonl as far as they are there, the others made and written now.

    Args:
        variants: of the suite; not necessarily all.
        seeds: how many, from `first_seed` on; the seed draws the prompt too.
        cost: also measure every variant's operations, memory and time, each on its own.
    """
    fingerprint, path = config.fingerprint(), out / "results.jsonl"
    rows = read_lines(path, fingerprint)
    done = {(row["variant"], row["seed"]) for row in rows}
    wanted: list[int | None] = [*range(first_seed, first_seed + seeds)]
    # Seed by seed: a run that is stopped has all variants of the seeds it got to.
    jobs = [Job(config, variant.name, seed) for seed in ([None] if cost else []) + wanted for variant in variants]
    jobs = [job for job in jobs if (job.variant, job.seed) not in done]
    out.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in [{"config": fingerprint}, *rows])
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    with path.open("a", encoding="utf-8") as file, tqdm(total=len(jobs), unit="video", disable=None) as bar:
        for row in _run(jobs, workers):
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
            bar.update()
    order = {variant.name: i for i, variant in enumerate(variants)}
    keep = {(variant.name, seed) for variant in variants for seed in [None, *wanted]}
    rows = [row for row in rows if (row["variant"], row["seed"]) in keep]
    return sorted(rows, key=lambda row: (row["seed"] or -1, order[row["variant"]]))


def _run(jobs: list[Job], workers: int) -> Iterator[dict[str, Any]]:
    if workers <= 1 or len(jobs) <= 1:
        yield from map(run_job, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(min(workers, len(jobs))) as pool:
        yield from pool.imap_unordered(run_job, jobs)
