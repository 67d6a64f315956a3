"""The commands evaluate and evidence."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from motionprompt_core.guidance.settings import GuidanceSettings
from motionprompt_tools.commandline import add_command

from .evidence import FOLDER, write_evidence
from .report import draw, markdown
from .run import FIRST_SEED, WEIGHTS, RunConfig, run_suite
from .suites import SEEDS, suite_variants
from .summary import summarise
from .variants import Variant


def add_to(commands: Any) -> None:
    """Adds both commands to an argparse parser's subparsers."""
    evaluate = add_command(
        commands,
        "evaluate",
        run_evaluate,
        "does the guidance help? measured on the demo model",
        "Makes videos of the demo model with MotionPrompt and without, and with controls, paired by prompt "
        "and seed, and measures them. Stopped at any moment, the same command goes on. Results: results.jsonl, "
        "summary.json, report.md, report.png.",
    )
    evaluate.add_argument(
        "--suite",
        choices=SEEDS,
        default="quick",
        help="quick: three controls; paper: its ablations; baselines: other methods; modes: ways to save",
    )
    evaluate.add_argument(
        "--variants", nargs="+", metavar="VARIANT", help="only these variants of the suite, and plain"
    )
    evaluate.add_argument("--seeds", type=int, help="prompts and seeds; without it as many as the suite is made for")
    evaluate.add_argument("--first-seed", type=int, default=FIRST_SEED, help="seeds are this one and the next ones")
    evaluate.add_argument(
        "--out",
        type=Path,
        help="folder for the results, without it output/evaluate/SUITE; "
        "suites that share one share the videos of the variants that they have in common",
    )
    evaluate.add_argument("--settings", type=json.loads, default={}, help="guidance settings, as JSON")
    evaluate.add_argument("--words", default="authentic", help="initial words of the tokens")
    evaluate.add_argument("--word", default="smooth", help="the fixed word of the control")
    evaluate.add_argument("--steps", type=int, default=20, help="DDIM steps")
    evaluate.add_argument("--weights", default=str(WEIGHTS), help="folder with the demo model and its discriminator")
    evaluate.add_argument("--other-discriminator", default="", help="paper: a second one, the guide of another variant")
    evaluate.add_argument("--flow-model", default="lucas_kanade", help="measures motion for the metrics")
    evaluate.add_argument("--workers", type=int, default=2, help="videos made at the same time, a thread each")
    evaluate.add_argument("--no-cost", action="store_true", help="do not count operations and memory")

    evidence = add_command(
        commands,
        "evidence",
        lambda options: write_evidence(options.folder, options.add),
        "write docs/evidence.md anew from the summaries in docs/evidence",
    )
    evidence.add_argument("--folder", type=Path, default=FOLDER, help="folder with the summaries")
    evidence.add_argument(
        "--add",
        nargs="*",
        default=[],
        metavar="[NAME=]FILE",
        help="summary.json files to put there first, by their suite's or another name",
    )


def choose_variants(variants: list[Variant], names: list[str] | None) -> list[Variant]:
    """The named variants and plain, in the suite's order; ValueError names one that is not in the suite."""
    known = [variant.name for variant in variants]
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise ValueError(f"--variants: {', '.join(unknown)} not in this suite, expected some of: {', '.join(known)}.")
    return [variant for variant in variants if names is None or variant.name in ("plain", *names)]


def run_evaluate(options: argparse.Namespace) -> None:
    seeds = SEEDS[options.suite] if options.seeds is None else options.seeds
    if seeds < 2:
        raise ValueError(f"--seeds is {seeds}, but an interval needs at least 2.")
    if not isinstance(options.settings, dict):
        raise ValueError("--settings must be a JSON object, such as '{\"iterations\": 3}'.")
    GuidanceSettings.from_dict(options.settings)
    out = options.out or Path("output/evaluate") / options.suite
    config = RunConfig(
        options.suite,
        options.settings,
        options.words,
        options.word,
        options.steps,
        options.flow_model,
        options.weights,
        options.other_discriminator,
    )
    variants = choose_variants(
        suite_variants(config.suite, config.fixed_word, bool(config.other_discriminator)), options.variants
    )
    rows = run_suite(
        config,
        variants,
        seeds,
        options.first_seed,
        out,
        options.workers,
        cost=not options.no_cost and options.suite != "quick",
    )
    summary = summarise(rows, variants, {"suite": config.suite, **config.fingerprint()})
    if options.variants:
        summary["chosen"] = options.variants
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if len(variants) > 1:
        draw(summary, out / "report.png")
    report = markdown(summary, "report.png" if len(variants) > 1 else None)
    (out / "report.md").write_text(report, encoding="utf-8")
    print(report)
