"""Does training hold on thousands of clips, and when it is killed? Generates clips, trains, kills, resumes, compares.

    python -m scripts.scale_check --clips 5000 --out output/scale

Writes clips (soft patterns that drift evenly on the real side, and jitter on the other), trains once undisturbed, once
killed three times at random moments, each with a cache of its own, and prints peak memory, held-out AUROC of both and
whether every cache file is whole. Moments are CPU time, so that what else the machine does does not move a kill beyond
the end. Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import safe_open

from motionprompt_core.discriminator.model import load_discriminator
from motionprompt_tools.writing import write_video

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ["--flow-model", "lucas_kanade", "--frame-size", "48", "--pairs", "1", "--gaps", "1", "--max-frames", "4"]


def pattern(seed: int, jitter: float, size: int = 48, frames: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    phase, speed = 6 * torch.rand(3, 1, 1, 1, generator=generator), 3 * torch.rand((), generator=generator)
    cells = jitter * torch.randn(frames, 2, 5, 5, generator=generator)
    wobble = torch.nn.functional.interpolate(cells, size=(size, size), mode="bilinear")
    x = torch.arange(size)[None, None, :] - speed * torch.arange(frames)[:, None, None] + wobble[:, 0]
    y = torch.arange(size)[None, :, None] + wobble[:, 1]
    return (0.5 + 0.25 * torch.sin(x / 6 + phase) + 0.2 * torch.cos(y / 7 + phase)).movedim(0, 1).clamp(0, 1)


def make_clips(folder: Path, count: int) -> None:
    for side, jitter in (("real", 0.0), ("generated", 1.0)):
        for seed in range(count // 2):
            path = folder / side / f"{seed:05d}.webp"
            if not path.is_file():
                write_video(pattern(seed + (side == "real") * 1_000_000, jitter), path)


def command(folder: Path, name: str, epochs: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "motionprompt_tools",
        "train-discriminator",
        "--real",
        str(folder / "real"),
        "--generated",
        str(folder / "generated"),
        "--cache",
        str(folder / f"cache_{name}"),
        "--out",
        str(folder / f"{name}.safetensors"),
        "--epochs",
        str(epochs),
        *SETTINGS,
    ]


def run(arguments: list[str], kill_after: float | None = None) -> dict[str, Any]:
    """Exit status, seconds, CPU seconds and peak memory; killed without warning after some CPU seconds if told so."""
    process = subprocess.Popen(arguments, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    observed, started, cpu, peak = psutil.Process(process.pid), time.monotonic(), 0.0, 0
    while process.poll() is None:
        try:
            cpu = sum(observed.cpu_times()[:2])
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except (psutil.Error, OSError):  # it has just ended
            continue
        peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))])
        if kill_after is not None and cpu > kill_after:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.2)
    return {
        "status": process.returncode,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": cpu,
        "peak_gib": peak / 2**30,
    }


def damaged(cache: Path) -> list[str]:
    """Cache files that cannot be read whole, and what a killed run left half-written under a final name."""
    bad = []
    for file in cache.glob("*.safetensors"):
        try:
            with safe_open(file, "pt") as content:
                if not torch.isfinite(content.get_tensor("flow")).all():
                    bad.append(file.name)
        except Exception as error:  # whatever is wrong with it
            bad.append(f"{file.name}: {error}")
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("output/scale"))
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    args = parser.parse_args()
    make_clips(args.out, args.clips)
    whole = run(command(args.out, "whole", args.epochs))
    result: dict[str, Any] = {"clips": args.clips, "epochs": args.epochs, "runs": [whole]}
    moments = random.Random(args.seed)
    for _ in range(3):
        after = moments.uniform(0.1, 0.3) * whole["cpu_seconds"]  # three of them come before the end of the work
        killed = run(command(args.out, "killed", args.epochs), after)
        files = len(list((args.out / "cache_killed").glob("*.safetensors")))
        result["runs"].append({**killed, "killed_after": after, "flows_kept": files})
        print(json.dumps(result["runs"][-1]), flush=True)
    result["runs"].append(run(command(args.out, "killed", args.epochs)))
    for name in ("whole", "killed"):
        measured = load_discriminator(args.out / f"{name}.safetensors").metadata
        result[name] = {key: measured[key] for key in ("auroc", "val_loss", "real_clips", "generated_clips")}
        result[name]["damaged"] = damaged(args.out / f"cache_{name}")
    result["peak_gib"] = max(each["peak_gib"] for each in result["runs"])
    (args.out / "scale.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
