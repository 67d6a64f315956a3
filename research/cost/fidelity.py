"""What saving changes: gradients and token moves of the cheaper ways, beside the exact ones, on the demo model.

    python -m research.cost.fidelity --seeds 16 --out output/fidelity

One line per prompt and step goes to results.jsonl as it comes (a second start goes on from there), then medians and
quartiles to summary.md. Steps are those of an unguided video, tokens those that they begin as.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motionprompt_core.guidance.autograd import constant_layers
from motionprompt_core.guidance.objective import objective
from motionprompt_core.guidance.optimise import PromptOptimiser
from motionprompt_core.guidance.pairs import draw_pairs
from motionprompt_core.guidance.record import guide_step
from motionprompt_core.guidance.report import StepReport
from motionprompt_core.guidance.settings import MODES, GuidanceSettings
from motionprompt_core.guidance.tokens import LearnableTokens
from motionprompt_core.guidance.view import GuidedModel, View
from motionprompt_tools import world

from ..demo.pipeline import DemoPipeline, load_pipeline

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
FIRST_SEED = 50_000  # the discriminator's training begins at 10,000
STEPS = (8, 12, 16)  # of those that the quickstart guides
WORDS = "smooth"


class Moment:
    """The demo model at one step of one video. `uncond` (F, 4, h, w) is the negative prompt's estimate, for CFG."""

    def __init__(self, pipeline: DemoPipeline, x: Tensor, t: int, prompt: str, uncond: Tensor | None = None):
        self.pipeline, self.x, self.t, self.prompt, self.uncond = pipeline, x, t, prompt, uncond
        unet = pipeline.weights.unet
        self.early = (unet.down0, unet.down1, unet.down2)
        assert pipeline.flow is not None
        self.model = GuidedModel(
            lambda rows: pipeline.embed(prompt, rows["l"]),
            lambda c: self.with_cfg(pipeline.predict_x0(x, t, c)),
            pipeline.decode,
            pipeline.flow,
            pipeline.discriminator,
        )

    def with_cfg(self, x0: Tensor) -> Tensor:
        return x0 if self.uncond is None else torch.lerp(self.uncond, x0, self.pipeline.cfg)

    def some_frames(self, frames: list[int]) -> Callable[[Tensor], Tensor]:
        """As `predict_x0`, from these frames alone, each at its own place in time; the others stay empty."""

        def predict(context: Tensor) -> Tensor:
            a, x = self.pipeline.alphas[self.t], self.x[frames]
            times = torch.full((len(x),), self.t)
            v = self.pipeline.weights.unet(x, times, context.expand(len(x), -1, -1), len(x), torch.tensor(frames))
            out = self.x.new_zeros(self.x.shape)
            return self.with_cfg(out.index_put((torch.tensor(frames),), a.sqrt() * x - (1 - a).sqrt() * v))

        return predict

    def half_size(self, latents: Tensor) -> Tensor:
        return self.pipeline.decode(F.interpolate(latents, scale_factor=0.5, mode="bilinear", antialias=True))

    def gradient(self, rows: Tensor, pair: tuple[int, ...], settings: GuidanceSettings, way: str) -> Tensor:
        """Gradient of the loss on one pair for the rows."""
        model, predict = self.model, self.model.predict_x0
        if way.endswith("frames"):
            predict = self.some_frames(surrounding(pair, len(self.x), int(way.split()[0])))
        if way == "half-size decoding":
            model = replace(model, decode=self.half_size)
        rows = rows.clone().requires_grad_()
        with torch.enable_grad(), constant_layers(self.early if way == "late layers" else ()):
            x0 = predict(model.encode({"l": rows}))
            loss, _ = objective(View(model, x0, [pair]), settings)
            return torch.autograd.grad(loss, rows)[0]

    def move(self, rows: Tensor, settings: GuidanceSettings, seed: int) -> Tensor:
        """How far a guided step moves the rows."""
        tokens = LearnableTokens({"l": rows})
        optimiser = PromptOptimiser(tokens, settings, seed)
        with torch.enable_grad(), constant_layers(self.early if optimiser.mode.truncated else ()):
            guide_step(optimiser, self.model, StepReport(0, 1.0))
        return tokens.rows["l"].detach() - rows


def surrounding(pair: tuple[int, ...], num_frames: int, count: int) -> list[int]:
    """`count` frames with the pair among them: a run, if it fits into one."""
    i, j = pair[0], pair[-1]
    if j - i < count:
        start = min(max(0, i - (count - (j - i + 1)) // 2), num_frames - count)
        return list(range(start, start + count))
    return sorted({round(k) for k in np.linspace(i, j, count)})


GRADIENTS = ("late layers", "8 frames", "4 frames", "half-size decoding")


def compare(pipeline: DemoPipeline, seed: int, settings: GuidanceSettings) -> list[dict[str, Any]]:
    """Cosines of the cheaper ways with the exact one, and ratios of lengths, at some steps of one video."""
    clip = world.random_clip(torch.Generator().manual_seed(seed), fault_share=0)
    prompt, rows, found = world.caption(clip), pipeline.initial_tokens(WORDS), []
    moments: list[tuple[int, int, Tensor]] = []

    class Watching(DemoPipeline):
        def before_step(self, step: int, t: int, x: Tensor, context: Tensor, negative: Tensor) -> Tensor:
            if step in STEPS:
                moments.append((step, t, x))
            return x

    watching = Watching(**{each.name: getattr(pipeline, each.name) for each in fields(DemoPipeline)})
    watching.denoise(pipeline.noise(seed), prompt, seed)
    for step, t, x in moments:
        uncond = pipeline.predict_x0(x, t, pipeline.embed(pipeline.negative)) if settings.loss_on == "cfg" else None
        moment = Moment(pipeline, x, t, prompt, uncond)
        pair = draw_pairs(len(x), settings, torch.Generator().manual_seed(seed))[0]
        exact = moment.gradient(rows, pair, settings, "exact")
        row: dict[str, Any] = {"seed": seed, "step": step}
        row |= {f"gradient, {way}": _beside(moment.gradient(rows, pair, settings, way), exact) for way in GRADIENTS}
        moves = {
            mode: moment.move(rows, GuidanceSettings(**{**settings.to_dict(), "mode": mode}), seed) for mode in MODES
        }
        row |= {f"move, {mode}": _beside(moves[mode], moves["exact"]) for mode in MODES if mode != "exact"}
        other = moment.move(rows, settings, seed + 1)
        found.append(row | {"move, exact with other pairs": _beside(other, moves["exact"])})
    return found


def _beside(a: Tensor, b: Tensor) -> tuple[float, float]:
    return float(F.cosine_similarity(a.flatten(), b.flatten(), dim=0)), float(a.norm() / b.norm())


def markdown(rows: list[dict[str, Any]]) -> str:
    """Median and quartiles over prompts and steps."""
    seeds = len({row["seed"] for row in rows})
    lines = [
        f"{seeds} prompts and seeds, steps {', '.join(map(str, STEPS))} of 20; median [quartiles].",
        "",
        "| | cosine with exact | length / exact |",
        "|---|---|---|",
    ]
    for key in rows[0]:
        if key not in ("seed", "step"):
            columns = np.array([row[key] for row in rows]).T
            cells = [f"{m:.2f} [{a:.2f}, {b:.2f}]" for a, m, b in (np.percentile(c, (25, 50, 75)) for c in columns)]
            lines.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--out", type=Path, default=Path("output/fidelity"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--settings", type=json.loads, default={}, help="guidance settings as JSON; else the defaults")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {row["seed"] for row in rows}
    torch.set_num_threads(1)
    pipeline = load_pipeline(args.weights)
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        if seed not in done:
            found = compare(pipeline, seed, GuidanceSettings(**args.settings))
            rows += found
            with path.open("a") as file:
                file.write("".join(json.dumps(row) + "\n" for row in found))
    (args.out / "summary.md").write_text(markdown(rows))
    print(markdown(rows))


if __name__ == "__main__":
    main()
