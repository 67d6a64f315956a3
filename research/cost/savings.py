"""How far cheaper ways of looking at a frame pair keep the gradient for the tokens, on the demo model.

    python -m research.cost.savings --seeds 4

What is saved at the denoiser, and how whole steps move the tokens, is compared by `research.cost.fidelity`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from motionprompt_core.flow.rife import RifeFlow
from motionprompt_core.guidance.objective import objective
from motionprompt_core.guidance.pairs import draw_pairs
from motionprompt_core.guidance.settings import GuidanceSettings
from motionprompt_core.guidance.view import GuidedModel, View
from motionprompt_tools import world

from ..demo.pipeline import DemoPipeline, load_pipeline
from .fidelity import FIRST_SEED, STEPS, WORDS, Moment

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"


def moments(pipeline: DemoPipeline, seed: int, cfg: bool) -> list[Moment]:
    """The steps of one unguided video; `cfg` has the loss look at the estimate with CFG."""
    prompt, found = world.caption(world.random_clip(torch.Generator().manual_seed(seed), fault_share=0)), []
    context, negative = pipeline.embed(prompt), pipeline.embed(pipeline.negative)
    x, times = pipeline.noise(seed), pipeline.timesteps()
    for step, t in enumerate(times[: max(STEPS) + 1]):
        uncond, cond = (pipeline.predict_x0(x, t, c) for c in (negative, context))
        if step in STEPS:
            found.append(Moment(pipeline, x, t, prompt, uncond if cfg else None))
        x = pipeline.ddim(x, torch.lerp(uncond, cond, pipeline.cfg), t, times[step + 1])
    return found


def ways(model: GuidedModel, pipeline: DemoPipeline) -> dict[str, GuidedModel]:
    """By name; "exact" first."""

    def smaller(factor: float) -> Callable[[Tensor], Tensor]:
        return lambda x: pipeline.decode(F.interpolate(x, scale_factor=factor, mode="bilinear", antialias=True))

    def tile(side: int) -> Callable[[Tensor], Tensor]:
        start = (world.SIZE // 8 - side) // 2
        return lambda x: pipeline.decode(x[..., start : start + side, start : start + side])

    def rife(blocks: int = 4, **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
        network = cast(RifeFlow, pipeline.flow).network

        def estimate(a: Tensor, b: Tensor) -> Tensor:
            flow = network(a, b, **options)[blocks - 1]
            return flow[:, 2:] - flow[:, :2]

        return estimate

    found: dict[str, dict[str, Any]] = {
        "exact": {},
        "decoded at 3/4 of the size": {"decode": smaller(0.75)},
        "decoded at half the size": {"decode": smaller(0.5)},
        "the middle 3/4 by 3/4": {"decode": tile(12)},
        "the middle half by half": {"decode": tile(8)},
    }
    if isinstance(pipeline.flow, RifeFlow):
        found["RIFE without its finest block"] = {"flow": rife(3)}
        found["RIFE at half the resolution"] = {"flow": rife(scales=(8, 4, 2, 1))}
    return {name: replace(model, **change) for name, change in found.items()}


def gradients(moment: Moment, rows: Tensor, pair: tuple[int, ...], settings: GuidanceSettings) -> dict[str, Tensor]:
    """Gradients of the loss on one pair for the rows, by way; the denoiser is the same for all."""
    rows, found = rows.clone().requires_grad_(), {}
    with torch.enable_grad():
        x0 = moment.model.predict_x0(moment.model.encode({"l": rows}))
        for name, model in ways(moment.model, moment.pipeline).items():
            leaf = x0.detach().requires_grad_()
            (for_x0,) = torch.autograd.grad(objective(View(model, leaf, [pair]), settings)[0], leaf)
            (found[name],) = torch.autograd.grad(x0, rows, for_x0, retain_graph=True)
    return found


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--settings", type=json.loads, default={}, help="guidance settings as JSON; else the defaults")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipeline, settings = load_pipeline(WEIGHTS), GuidanceSettings(**args.settings)
    rows, found = pipeline.initial_tokens(WORDS), []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for moment in moments(pipeline, seed, settings.loss_on == "cfg"):
            pair = draw_pairs(pipeline.frames, settings, torch.Generator().manual_seed(seed))[0]
            found.append(gradients(moment, rows, pair, settings))
            print(seed, moment.t, {name: round(_cosine(g, found[-1]["exact"]), 3) for name, g in found[-1].items()})
    print(
        f"\n{args.seeds} prompts and seeds, steps {', '.join(map(str, STEPS))} of 20; median [quartiles]\n\n"
        "| | cosine with exact | length / exact |\n|---|---|---|"
    )
    for name in found[0]:
        cosines = [_cosine(row[name], row["exact"]) for row in found]
        lengths = [float(row[name].norm() / row["exact"].norm()) for row in found]
        print(f"| {name} | {_quartiles(cosines)} | {_quartiles(lengths)} |")


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def _quartiles(values: list[float]) -> str:
    low, middle, high = torch.tensor(values).quantile(torch.tensor((0.25, 0.5, 0.75))).tolist()
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
