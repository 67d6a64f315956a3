"""The demo model as a subject of the benchmark: small, and measured for real."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..autograd import constant_layers
from ..demo.pipeline import DemoPipeline, load_pipeline
from ..settings import MODES, GuidanceSettings

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


def wall_times(pipeline: DemoPipeline, pairs: int, seed: int = 1) -> dict[str, list[float]]:
    """Processor seconds of whole samples by mode, "plain" among them, in turns."""
    torch.set_num_threads(1)  # so that the thread's time is all of it, however busy the machine is
    times: dict[str, list[float]] = {"plain": [], **{mode: [] for mode in MODES}}
    for number in range(pairs):
        for name, found in times.items():
            settings = None if name == "plain" else GuidanceSettings.from_dict({"mode": name})
            started = time.thread_time()
            pipeline.sample(PROMPT, seed + number, settings)
            found.append(time.thread_time() - started)
    return times


def wall_ratios(times: dict[str, list[float]]) -> dict[str, float]:
    """Median over the turns of each mode's time over the plain one's of the same turn."""
    plain = times["plain"]
    return {name: statistics.median(a / b for a, b in zip(found, plain, strict=True)) for name, found in times.items()}
