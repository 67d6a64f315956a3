"""The command bench."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from motionprompt_core.guidance.modes import COMPUTE_MODES
from motionprompt_tools.commandline import add_command

from ..figure import new_figure, save
from . import animatediff, demo
from .measure import fused_attention
from .recipes import Parts, Recipe, Row, Subject, evaluation, plain_step, table, whole_run

ROOT = Path(__file__).resolve().parents[2]
PAPER = Recipe("the paper's recipe taken literally", decoder="vae", flow="raft_large", literal=True)
ANIMATEDIFF = (
    PAPER,
    Recipe("exact"),
    Recipe("exact, checkpoints, TAESD", checkpointed=True, decoder="taesd"),
    Recipe("balanced", "balanced"),
    Recipe("balanced, TAESD", "balanced", decoder="taesd"),
    Recipe("balanced, checkpoints", "balanced", checkpointed=True),
    Recipe("balanced, checkpoints, TAESD", "balanced", checkpointed=True, decoder="taesd"),
    Recipe("fast, TAESD", "fast", decoder="taesd"),
    Recipe("fast, checkpoints, TAESD", "fast", checkpointed=True, decoder="taesd"),
    Recipe("balanced, every 2nd step, checkpoints", "balanced", True, every=2),
    Recipe("balanced, every 2nd step, checkpoints, TAESD", "balanced", True, "taesd", every=2),
    Recipe("fast, every 2nd step, checkpoints, TAESD", "fast", True, "taesd", every=2),
)
GROWING = (ANIMATEDIFF[6], ANIMATEDIFF[2])
DEMO = tuple(Recipe(mode, mode, decoder="demo") for mode in COMPUTE_MODES) + (
    Recipe("exact, checkpoints", "exact", True, "demo"),
    Recipe("balanced, checkpoints", "balanced", True, "demo"),
)


def add_to(commands: Any) -> None:
    """Adds the command to an argparse parser's subparsers."""
    bench = add_command(
        commands,
        "bench",
        run,
        "what guidance costs beside plain sampling",
        "Operations and bytes of every mode: on the demo model, with times, and on the shapes of Stable "
        "Diffusion 1.5 with AnimateDiff where ComfyUI and AnimateDiff-Evolved are found (COMFYUI_PATH).",
    )
    bench.add_argument("--json", type=Path, help="write the numbers here")
    bench.add_argument("--plot", type=Path, help="draw how cost grows into this .png (needs matplotlib)")
    bench.add_argument("--turns", type=int, default=3, help="times that plain and guided samples are timed in turns")
    bench.add_argument("--only", choices=("demo", "animatediff"), help="one of the two models")
    bench.add_argument("--no-growth", action="store_true", help="leave out how cost grows")
    bench.add_argument("--device", default="meta", help="for AnimateDiff: meta counts, cuda measures")


def run(options: argparse.Namespace) -> None:
    """Measures, prints tables, writes files."""
    found: dict[str, Any] = {}
    if options.only != "animatediff":
        found["demo"] = measure_demo(options.turns)
    if options.only != "demo":
        subject = animatediff.find(options.device)
        if subject is None:
            print("\nAnimateDiff is left out: no ComfyUI with AnimateDiff-Evolved (set COMFYUI_PATH).")
        elif options.device != "meta":
            found["device"] = measure_device(subject)
        else:
            with fused_attention():
                found["animatediff"] = measure_animatediff(subject)
                if not options.no_growth:
                    found["growth"] = growth(subject)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot is not None and "growth" in found:
        draw(found["growth"], options.plot)


def measure_demo(turns: int) -> dict[str, Any]:
    """The demo model: counted operations, real times."""
    subject = demo.load(ROOT / "weights")
    plain = plain_step(subject, 16, 128)
    rows = [whole_run(r, evaluation(subject, r, 16, 128), plain, steps=20) for r in DEMO]
    print(f"Demo model, 128 px, 16 frames, 20 steps, K = 3\n\n{table(rows)}")
    found: dict[str, Any] = {"rows": [asdict(row) for row in rows]}
    if turns > 0:
        times = demo.wall_times(subject.pipeline, turns)
        found |= {"seconds": times, "time_ratios": demo.wall_ratios(times), "shares": demo.shares(times)}
        parts = [part for part in found["shares"]["exact"] if part != "ours"]
        print(
            "\nProcessor time of whole videos (medians of the turns), and its shares; *other* is losses, Adam and "
            f"bookkeeping,\n*ours* flow, discriminator and other\n\n| | times plain | {' | '.join(parts)} | ours |"
        )
        print(f"|---|---|{'---|' * (len(parts) + 1)}")
        for mode, share in found["shares"].items():
            cells = " | ".join(f"{100 * share[part]:.1f} %" for part in (*parts, "ours"))
            print(f"| {mode} | {found['time_ratios'][mode]:.2f} | {cells} |")
    return found


def measure_animatediff(subject: Subject) -> list[dict[str, Any]]:
    plain = plain_step(subject, 16, 512)
    base = Row("plain", 50 * plain.flops["denoiser"], 1.0, 0.0, 0.0, plain.peak, 0.0)
    rows = [base]
    for recipe in ANIMATEDIFF:
        rows.append(whole_run(recipe, evaluation(subject, recipe, 16, 512), plain))
    print(
        "\nStable Diffusion 1.5 with AnimateDiff v2, 512 px, 16 frames, fp16, 50 steps with CFG, K = 3, steps 4 to "
        f"14;\nactivations alone, weights not counted\n\n{table(rows)}"
    )
    return [asdict(row) for row in rows]


def growth(subject: Subject) -> dict[str, list[dict[str, Any]]]:
    """How the cost of mode balanced, with checkpoints and TAESD, and of exact grows."""
    found: dict[str, list[dict[str, Any]]] = {}
    known: dict[tuple[int, ...], tuple[Parts, list[Parts]]] = {}

    def add(what: str, value: float, frames: int = 16, size: int = 512, tokens: int = 1, **more: Any) -> None:
        case, chunks = (frames, size, tokens), 1 if tokens < 75 else 2
        if case not in known:
            parts = [evaluation(subject, recipe, frames, size, tokens, chunks) for recipe in GROWING]
            known[case] = plain_step(subject, frames, size, chunks), parts
        plain, evaluations = known[case]
        for recipe, parts in zip(GROWING, evaluations, strict=True):
            row = whole_run(recipe, parts, plain, **more)
            found.setdefault(what, []).append(
                {"value": value, "plain_flops": 50 * plain.flops["denoiser"], "plain_peak": plain.peak, **asdict(row)}
            )

    for frames in (8, 16, 32, 64):  # the motion model has places for 32: 64 go in windows of 16 that share 4
        add("frames", frames, frames)
    for size in (256, 512, 768):
        add("resolution, px", size, size=size)
    for tokens in (1, 8, 75):
        add("tokens", tokens, tokens=tokens)
    for k in (1, 3, 5, 10):
        add("iterations K", k, iterations=k)
    for end in (0.14, 0.3, 0.5, 1.0):
        add("end of the window", end, stop=end)
    names = " | ".join(f"{recipe.mode}: times plain | peak, GiB" for recipe in GROWING)
    print(f"\n| | | plain, TFLOP | peak, GiB | {names} |\n|---|---|---|---|{'---|---|' * len(GROWING)}")
    for what, rows in found.items():
        for first in range(0, len(rows), len(GROWING)):
            group = rows[first : first + len(GROWING)]
            cells = " | ".join(f"{row['ratio']:.2f} | {row['peak'] / 2**30:.2f}" for row in group)
            plain = f"{group[0]['plain_flops'] / 1e12:.4g} | {group[0]['plain_peak'] / 2**30:.2f}"
            print(f"| {what} | {group[0]['value']} | {plain} | {cells} |")
    return found


def measure_device(subject: Any) -> list[dict[str, Any]]:
    """Seconds and peak memory on a real device, random weights."""
    device = torch.get_device_module(subject.device)
    rows = []
    for recipe in (None, *ANIMATEDIFF[1:]):
        seconds = 0.0
        for _ in range(2):  # the first warms up
            device.synchronize()
            device.reset_peak_memory_stats()
            started = time.perf_counter()
            if recipe is None:
                plain_step(subject, 16, 512, count=False)
            else:
                evaluation(subject, recipe, 16, 512, count=False)
            device.synchronize()
            seconds = time.perf_counter() - started
        peak = device.max_memory_allocated()
        rows.append({"name": recipe.name if recipe else "plain step", "seconds": seconds, "peak": peak})
        print(f"{rows[-1]['name']}, one evaluation: {seconds:.3f} s, peak with weights {peak / 2**30:.2f} GiB")
    return rows


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """One panel per quantity: operations over plain sampling, and peak memory."""
    figure = new_figure(2.6 * len(found), 4.4, dpi=70)
    axes = figure.subplots(2, len(found), sharey="row")
    for column, (what, rows) in enumerate(found.items()):
        for name in dict.fromkeys(row["name"] for row in rows):
            mine = [row for row in rows if row["name"] == name]
            values = [row["value"] for row in mine]
            axes[0][column].plot(values, [row["ratio"] for row in mine], "o-", label=name.split(",")[0])
            axes[1][column].plot(values, [row["peak"] / 2**30 for row in mine], "o-", label=name)
        axes[1][column].set_xlabel(what)
    axes[0][0].set_ylim(bottom=1)
    axes[1][0].set_ylim(bottom=0)
    axes[0][0].set_ylabel("operations, times plain")
    axes[1][0].set_ylabel("peak of an evaluation, GiB")
    axes[0][0].legend(fontsize=8)
    save(figure, path)
