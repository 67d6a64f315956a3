"""The ways of guiding that are compared, and what one run of each costs, put together from what was counted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from motionprompt_core.guidance.losses import adversarial_loss, total_variation
from motionprompt_core.guidance.modes import COMPUTE_MODES
from motionprompt_core.guidance.schedule import guided_steps
from motionprompt_core.guidance.settings import GuidanceSettings

from .measure import Meter


class Subject(Protocol):
    """A video model that is measured; `device` "meta" counts without computing."""

    name: str
    device: str
    decoders: tuple[str, ...]

    def rows(self, tokens: int) -> Tensor: ...

    def encode(self, rows: Tensor, chunks: int = 1) -> Tensor: ...

    def denoise(self, frames: int, size: int, cond: Tensor, conds: int, checkpointed: bool, late: bool) -> Tensor: ...

    def decode(self, latents: Tensor, decoder: str, checkpointed: bool) -> Tensor: ...

    def flow(self, name: str) -> Any: ...

    def discriminator(self) -> Any: ...


@dataclass(frozen=True)
class Recipe:
    """A way of guiding.

    Attributes:
        name: in the table. mode, every: as in `GuidanceSettings`. checkpointed: denoiser and decoder.
        decoder: one of the subject's. flow: flow model.
        literal: the negative prompt goes through every iteration, with gradient, as the paper's formulas have it.
    """

    name: str
    mode: str = "exact"
    checkpointed: bool = False
    decoder: str = "vae"
    flow: str = "rife_v4.0"
    every: int = 1
    literal: bool = False


@dataclass
class Parts:
    """Operations and seconds of the parts of one evaluation, and its memory.

    Attributes:
        flops, seconds (of this thread): by part: "text", "denoiser", "decode", "own" (flow, discriminator, losses); the
            last two of one frame pair.
        kept: bytes that wait for the denoiser's backward pass. peak: most bytes alive at any moment.
    """

    flops: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    kept: float = 0.0
    peak: float = 0.0

    @contextmanager
    def part(self, name: str, meter: Meter) -> Iterator[None]:
        flops, started = meter.flops, time.thread_time()
        yield
        self.flops[name] = self.flops.get(name, 0.0) + meter.flops - flops
        self.seconds[name] = self.seconds.get(name, 0.0) + time.thread_time() - started


def evaluation(
    subject: Subject, recipe: Recipe, frames: int, size: int, tokens: int = 1, chunks: int = 1, count: bool = True
) -> Parts:
    """One evaluation of the prompt with gradients, one frame pair judged, as `PromptOptimiser` goes through it.

    `count`: count operations and bytes; without, only the seconds are true.
    """
    parts, meter = Parts(), Meter()
    flow, discriminator = subject.flow(recipe.flow), subject.discriminator()
    late = COMPUTE_MODES[recipe.mode].truncated
    rows = subject.rows(tokens)
    with meter if count else nullcontext():
        with parts.part("text", meter):
            cond = subject.encode(rows, chunks)
        with parts.part("denoiser", meter):
            x0 = subject.denoise(frames, size, cond, 2 if recipe.literal else 1, recipe.checkpointed, late)
        parts.kept = float(meter.now)
        leaf = x0.detach().requires_grad_()
        with parts.part("decode", meter):
            pictures = subject.decode(leaf[[0, 1]], recipe.decoder, recipe.checkpointed)
        with parts.part("own", meter):
            seen = pictures.detach().requires_grad_()
            motion = flow(seen[:1], seen[1:])
            loss = adversarial_loss(discriminator(motion)) + total_variation(motion)
            (for_pictures,) = torch.autograd.grad(loss, seen)
            del motion, loss
        with parts.part("decode", meter):
            (for_x0,) = torch.autograd.grad(pictures, leaf, for_pictures)
            del pictures, seen, for_pictures
        with parts.part("denoiser", meter):
            torch.autograd.grad(x0, rows, for_x0)
        parts.peak = float(meter.peak)
    return parts


@torch.no_grad()
def plain_step(subject: Subject, frames: int, size: int, chunks: int = 1, count: bool = True) -> Parts:
    """One step of plain sampling: the prompt and the negative prompt in one batch."""
    parts, meter = Parts(), Meter()
    cond = subject.encode(subject.rows(1), chunks)
    with meter if count else nullcontext(), parts.part("denoiser", meter):
        subject.denoise(frames, size, cond, 2, False, False)
    parts.peak = float(meter.peak)
    return parts


@dataclass
class Row:
    """A recipe's cost for a whole run, `ratio` and `extra` in comparison with plain sampling.

    Attributes:
        flops: of the run. ratio: times the plain run's. own: share of flow, discriminator and losses in the
            denoiser's operations while optimising.
        kept, peak: bytes in an evaluation, see `Parts`. extra: peak beyond the plain step's.
    """

    name: str
    flops: float
    ratio: float
    own: float
    kept: float
    peak: float
    extra: float


def whole_run(recipe: Recipe, parts: Parts, plain: Parts, steps: int = 50, iterations: int = 3, **window: Any) -> Row:
    """A run of `steps` with the recipe; the guided window is the paper's unless given."""
    settings = GuidanceSettings(iterations=iterations, every=recipe.every, **window)
    guided = len(guided_steps(steps, settings))
    evaluations = 1 if COMPUTE_MODES[recipe.mode].accumulate else iterations
    denoiser = evaluations * (parts.flops["denoiser"] + parts.flops["text"])
    own = iterations * parts.flops["own"]
    base = steps * plain.flops["denoiser"]
    total = base + guided * (denoiser + own + iterations * parts.flops["decode"])
    extra = max(0.0, parts.peak - plain.peak)
    return Row(recipe.name, total, total / base, own / denoiser, parts.kept, parts.peak, extra)


def table(rows: Iterable[Row]) -> str:
    """Markdown."""
    gib = 2.0**30
    lines = [
        "| | TFLOP | times plain | kept for backward, GiB | peak, GiB | beyond plain, GiB | own parts |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        memory = " | ".join(f"{value / gib:.2f}" for value in (row.kept, row.peak, row.extra))
        lines.append(f"| {row.name} | {row.flops / 1e12:.4g} | {row.ratio:.2f} | {memory} | {100 * row.own:.1f} % |")
    return "\n".join(lines)
