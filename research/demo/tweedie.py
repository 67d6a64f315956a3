r"""Is a discriminator better that has seen Tweedie's estimates? Trained with and without them, on the demo model.

    python -m research.demo.tweedie --run runs/demo --out output/tweedie --clips 100 --held-out 24

The paper trains on finished videos but judges blurry estimates. Two discriminators are trained on the same seeds:
`clean` on finished videos, `aware` on those and estimates. auroc.json has how well either judges each step's
estimates and finished videos, on held-out seeds. What either does as a guide, paired by prompt and seed:

    python -m research evaluate --suite paper --variants motionprompt "other discriminator" --other-discriminator \
        output/tweedie/clean.safetensors
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from motionprompt_core.discriminator.model import FlowDiscriminator, load_discriminator, save_discriminator

from ..statistics import bootstrap_auroc
from .train_discriminator import CONFIG, SIDES, STEPS, TRAINED, collect, train

FIRST_HELD_OUT = 30_000
PARTS = (*(f"{step:02}" for step in STEPS), "finished")


def train_both(files: Sequence[Path], out: Path, epochs: int) -> dict[str, FlowDiscriminator]:
    """Both discriminators, from their files if they are there."""
    found = {}
    for variant in ("aware", "clean"):
        path = out / f"{variant}.safetensors"
        if not path.is_file():
            config = replace(CONFIG, trained_on=f"sprite world against the demo model, {variant}")
            names = TRAINED if variant == "aware" else ("finished",)
            result = train(files, config, epochs, names, out / f"{variant}.training.safetensors")
            save_discriminator(result.model, path, **result.best.to_dict(), license="GPL-3.0")
        found[variant] = load_discriminator(path)
    return found


@torch.no_grad()
def scores(model: FlowDiscriminator, files: Sequence[Path]) -> dict[tuple[str, str], list[float]]:
    """Mean logit of each clip's flows of a side at a step, or of its finished video, under (side, part)."""
    found: dict[tuple[str, str], list[float]] = {(side, part): [] for side in SIDES for part in PARTS}
    for file in files:
        flows = load_file(file)
        for (side, part), values in found.items():
            values.append(model(flows[f"{side}.{part}"].float()).mean().item())
    return found


def auroc_by_part(discriminators: dict[str, FlowDiscriminator], files: Sequence[Path]) -> dict[str, Any]:
    """AUROC of clips (mean logit of a clip's flows) against real ones, by part, kind of fake and discriminator."""
    table: dict[str, Any] = {"held_out_clips": len(files)}
    for variant, model in discriminators.items():
        found = scores(model, files)
        for part in PARTS:
            for side in SIDES[1:]:
                table.setdefault(part, {}).setdefault(side, {})[variant] = bootstrap_auroc(
                    found["real", part], found[side, part]
                )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="its flows are trained on")
    parser.add_argument("--out", type=Path, default=Path("output/tweedie"))
    parser.add_argument("--weights", default="weights/demo_video_model.safetensors")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--held-out", type=int, default=24, help="seeds that AUROC is measured on")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    files = collect(args.run, args.weights, args.clips, args.workers)
    held_out = collect(args.out / "held-out", args.weights, args.held_out, args.workers, FIRST_HELD_OUT)
    table = auroc_by_part(train_both(files, args.out, args.epochs), held_out)
    (args.out / "auroc.json").write_text(json.dumps(table, indent=2) + "\n")
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
