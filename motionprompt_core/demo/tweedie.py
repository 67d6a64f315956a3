"""Is a discriminator better that has seen Tweedie's estimates? Trained with and without them, on the demo model.

    python -m motionprompt_core.demo.tweedie --run runs/demo --out output/tweedie --clips 240 --held-out 48

The paper trains on finished videos but judges blurry estimates. Two discriminators are trained on the same seeds:
`clean` on finished videos, `aware` on those and estimates. auroc.json has how well either judges each part of the
schedule, on held-out seeds. What either does as a guide, paired by prompt and seed:

    python -m motionprompt_core evaluate --suite quick --other-discriminator output/tweedie/clean.safetensors
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

from ..discriminator import FlowDiscriminator, load_discriminator, save_discriminator
from ..statistics import bootstrap_auroc
from .train_discriminator import CONFIG, SIDES, collect, train

FIRST_HELD_OUT = 30_000
PARTS = {"steps 8-10": range(8, 11), "steps 11-14": range(11, 15), "steps 15-18": range(15, 19), "finished": ()}


def train_both(files: Sequence[Path], out: Path, epochs: int) -> dict[str, FlowDiscriminator]:
    """Both discriminators, from their files if they are there."""
    found = {}
    for arm in ("aware", "clean"):
        path = out / f"{arm}.safetensors"
        if not path.is_file():
            config = replace(CONFIG, trained_on=f"sprite world against the demo model, {arm}")
            result = train(files, config, epochs, arm == "aware", out / f"{arm}.training.safetensors")
            save_discriminator(result.model, path, **result.best.to_dict(), license="GPL-3.0")
        found[arm] = load_discriminator(path)
    return found


@torch.no_grad()
def scores(model: FlowDiscriminator, files: Sequence[Path]) -> dict[tuple[str, str], list[float]]:
    """Mean logit of each clip's flows of a side in a part of the schedule, under (side, part)."""
    found: dict[tuple[str, str], list[float]] = {(side, part): [] for side in SIDES for part in PARTS}
    for file in files:
        flows = load_file(file)
        for (side, part), values in found.items():
            names = [f"{side}.{step:02}" for step in PARTS[part]] or [f"{side}.finished"]
            chosen = [flows[name].float() for name in names if name in flows]
            if chosen:
                values.append(model(torch.cat(chosen)).mean().item())
    return found


def auroc_by_part(discriminators: dict[str, FlowDiscriminator], files: Sequence[Path]) -> dict[str, Any]:
    """AUROC of clips (mean logit of a clip's flows) against real ones, by part, kind of fake and discriminator."""
    table: dict[str, Any] = {"held_out_clips": len(files)}
    for arm, model in discriminators.items():
        found = scores(model, files)
        for part in [part for part in PARTS if found["real", part]]:
            for side in SIDES[1:]:
                table.setdefault(part, {}).setdefault(side, {})[arm] = bootstrap_auroc(
                    found["real", part], found[side, part]
                )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="its flows are trained on")
    parser.add_argument("--out", type=Path, default=Path("output/tweedie"))
    parser.add_argument("--weights", default="weights/demo_video_model.safetensors")
    parser.add_argument("--clips", type=int, default=240)
    parser.add_argument("--held-out", type=int, default=48, help="seeds that AUROC is measured on")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    collect(args.run / "flows", args.weights, args.clips, args.workers)
    collect(args.out / "held-out", args.weights, args.held_out, args.workers, FIRST_HELD_OUT)
    discriminators = train_both(sorted((args.run / "flows").glob("*.safetensors")), args.out, args.epochs)
    table = auroc_by_part(discriminators, sorted((args.out / "held-out").glob("*.safetensors")))
    (args.out / "auroc.json").write_text(json.dumps(table, indent=2) + "\n")
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
