"""The demo model as a subject of the benchmark: small, and measured for real."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from motionprompt_core.guidance.autograd import constant_layers
from motionprompt_core.guidance.settings import MODES, GuidanceSettings

from ..demo.pipeline import DemoPipeline, load_pipeline
from .measure import Stopwatch

PROMPT = "a red star moving left on grass"


class DemoSubject:
    """See `Subject`. Frames up to 16, size 128."""

    name, device, decoders = "demo", "cpu", ("demo",)

    def __init__(self, pipeline: DemoPipeline):
        self.pipeline = pipeline

    def rows(self, tokens: int) -> Tensor:
        first = self.pipeline.initial_tokens("authentic")
        return first[:1].repeat(tokens, 1).requires_grad_()

    def encode(self, rows: Tensor, chunks: int = 1) -> Tensor:
        return self.pipeline.embed(PROMPT, rows)

    def denoise(self, frames: int, size: int, cond: Tensor, conds: int, checkpointed: bool, late: bool) -> Tensor:
        unet = self.pipeline.weights.unet
        x = torch.randn(conds * frames, unet.config.latent_channels, size // 8, size // 8)
        stages = [unet.down0, unet.down1, unet.down2, unet.mid, unet.up2, unet.up1a, unet.up1b, unet.up0a, unet.up0b]
        with ExitStack() as stack:
            if checkpointed:
                stack.enter_context(_checkpointed(stages))
            stack.enter_context(constant_layers(stages[:3] if late else ()))
            return unet(x, torch.full((len(x),), 800), cond.expand(len(x), -1, -1), frames)[:frames]

    def decode(self, latents: Tensor, decoder: str, checkpointed: bool) -> Tensor:
        return self.pipeline.decode(latents)

    def flow(self, name: str) -> Any:
        return self.pipeline.flow

    def discriminator(self) -> Any:
        return self.pipeline.discriminator


class _checkpointed(ExitStack):
    """Within it these layers keep their inputs only."""

    def __init__(self, layers: Sequence[nn.Module]):
        super().__init__()
        for layer in layers:
            forward = layer.forward
            layer.__dict__["forward"] = lambda *args, forward=forward: checkpoint(forward, *args, use_reentrant=False)
            self.callback(layer.__dict__.pop, "forward")


def load(weights: Path) -> DemoSubject:
    """The demo model with its flow model and discriminator."""
    return DemoSubject(load_pipeline(weights))


class TimedPipeline(DemoPipeline):
    """The demo's pipeline, the time of its parts taken down by `watch`."""

    def __init__(self, pipeline: DemoPipeline, watch: Stopwatch):
        super().__init__(**{each.name: getattr(pipeline, each.name) for each in fields(DemoPipeline)})
        self.watch = watch
        judge: Any = pipeline.discriminator
        self.flow: Any = watch.timed("flow", cast(Any, pipeline.flow))
        self.discriminator: Any = watch.timed("discriminator", judge)
        self.discriminator.num_flows = judge.num_flows

    def embed(self, prompt: str, rows: Tensor | None = None) -> Tensor:
        return self.watch.timed("text encoder", super().embed)(prompt, rows)

    def predict_x0(self, x: Tensor, t: int, context: Tensor) -> Tensor:
        return self.watch.timed("denoiser", super().predict_x0)(x, t, context)

    def decode(self, x0: Tensor) -> Tensor:
        return self.watch.timed("decoder", super().decode)(x0)


def timed_sample(
    pipeline: DemoPipeline, seed: int, mode: str, clock: Callable[[], float] = time.thread_time
) -> dict[str, float]:
    """What a sample takes: "total", and its parts, of which "other" is losses, Adam and bookkeeping.

    Args:
        mode: one of `MODES`, or "plain". clock: see `Stopwatch`.
    """
    watch = Stopwatch(clock)
    settings = None if mode == "plain" else GuidanceSettings.from_dict({"mode": mode})
    started = clock()
    TimedPipeline(pipeline, watch).sample(PROMPT, seed, settings)
    total = clock() - started
    return {**watch.found, "other": total - sum(watch.found.values()), "total": total}


def wall_times(pipeline: DemoPipeline, turns: int, seed: int = 1) -> dict[str, list[dict[str, float]]]:
    """Processor seconds of whole samples by mode, "plain" among them, in turns; see `timed_sample`."""
    torch.set_num_threads(1)  # so that the thread's time is all of it, however busy the machine is
    times: dict[str, list[dict[str, float]]] = {"plain": [], **{mode: [] for mode in MODES}}
    for number in range(turns):
        for name, found in times.items():
            found.append(timed_sample(pipeline, seed + number, name))
    return times


def wall_ratios(times: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Median over the turns of each mode's time over the plain one's of the same turn."""
    return {
        name: statistics.median(a["total"] / b["total"] for a, b in zip(found, times["plain"], strict=True))
        for name, found in times.items()
    }


OURS = ("flow", "discriminator", "other")


def shares(times: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Shares of a sample's time by mode and part (medians over the turns); "ours" is what a plain sample lacks beside
    the model: flow, discriminator, losses, Adam, bookkeeping."""
    found: dict[str, dict[str, float]] = {}
    for mode in MODES:
        rows = [{**row, "ours": sum(row[part] for part in OURS)} for row in times[mode]]
        found[mode] = {
            part: statistics.median(row[part] / row["total"] for row in rows) for part in rows[0] if part != "total"
        }
    return found
