"""Which of twenty words, appended to the prompt, helps the plain demo model most? The control for learnt tokens.

    python -m research.evaluation.fixed_word --seeds 8

The seeds are not those of the suites. Some of the words are in the captions that the model learnt from, some are not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from pathlib import Path

from tqdm import tqdm

from motionprompt_core.guidance.settings import GuidanceSettings
from motionprompt_core.metrics.measure import measure_video
from motionprompt_tools import world

from ..demo import truth
from .run import RunConfig, network_of, prompt_of
from .summary import add_coherence
from .variants import fixed_word

FIRST_SEED = 30_000
WORDS = (
    *(word for word, (clean, faulty) in world.QUALITY_WORDS.items() if clean > faulty),
    *world.FILLER_WORDS,
    "moving",
    "motion",
    "video",
    "very",
    "the",
    "still",
    "slow",
    "stable",
    "coherent",
    "film",
)


def measure(job: tuple[str, int]) -> tuple[str, int, dict[str, float]]:
    word, seed = job
    networks, settings = network_of(RunConfig("quick")), GuidanceSettings()
    video = fixed_word(word).sample(networks, prompt_of(seed)[1], seed, settings, "")
    metrics = measure_video(video, networks.flow).metrics.to_dict()
    return word, seed, {**metrics, "permanence": truth.read(video).permanence}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("output/fixed_word.json"))
    options = parser.parse_args()
    seeds = list(range(FIRST_SEED, FIRST_SEED + options.seeds))
    jobs = [(word, seed) for seed in seeds for word in ("", *WORDS)]
    videos: dict[str, dict[int, dict[str, float]]] = {}
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for word, seed, metrics in tqdm(pool.imap_unordered(measure, jobs), total=len(jobs)):
            videos.setdefault(word or "plain", {})[seed] = metrics
    add_coherence(videos, seeds)
    scores = {word: sum(found[s]["coherence"] for s in seeds) / len(seeds) for word, found in videos.items()}
    ranking = sorted(scores.items(), key=lambda item: -item[1])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"seeds": len(seeds), "coherence": dict(ranking)}, indent=1) + "\n")
    for word, score in ranking:
        print(f"{score:+.3f} {word}")


if __name__ == "__main__":
    main()
