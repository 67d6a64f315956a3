"""Training phi as the paper does: binary cross-entropy between flows of real and generated videos, 20 epochs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from ..discriminator import DiscriminatorConfig, FlowDiscriminator
from .flows import degrade, flip


@dataclass(frozen=True)
class EpochResult:
    """One epoch. Losses are nats; auroc and accuracy (at phi = 1/2, classes weighted alike) are of held-out clips."""

    epoch: int
    train_loss: float
    val_loss: float
    auroc: float
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class TrainingResult:
    """The best network (frozen, evaluation mode), its epoch, and the history. `best.auroc` belongs into its file."""

    model: FlowDiscriminator
    best: EpochResult
    history: list[EpochResult]


def train_discriminator(
        real_flows: Sequence[Tensor] | Tensor,
        fake_flows: Sequence[Tensor] | Tensor,
        config: DiscriminatorConfig,
        *,
        epochs: int = 20,
        batch: int = 32,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.1,
        ema_decay: float = 0.99,
        val_share: float = 0.2,
        patience: int = 8,
        blur: float = 0.0,
        noise: float = 0.0,
        label_smoothing: float = 0.0,
        pretrained: bool | str | Path = False,
        device: torch.device | str = "cpu",
        seed: int = 0,
        on_epoch: Callable[[EpochResult], object] | None = None,
) -> TrainingResult:
    """Train on flows, one tensor (P, 2, H, W) a clip or all in one (N, P, 2, H, W); px.

    Args:
        real_flows, fake_flows: from `extract_flows`. Flows of one clip never land on both sides of the split. The
            classes may differ in size: the smaller is repeated, so that both weigh the same.
        config: architecture, and what it is trained for.
        epochs: passes over the larger class.
        batch: flows a step, half of them real.
        lr: highest learning rate of AdamW; rises over `warmup` (share of all steps), then falls as a cosine.
        weight_decay: of AdamW, on matrices only.
        ema_decay: of the running average of the weights that is evaluated and returned; 0 turns it off.
        val_share: share of the clips of each class held out, at least one.
        patience: stop after so many epochs without a lower held-out loss; the epoch with the lowest is returned.
        blur, noise: largest blur and noise of the flow, see `degrade`; 0 for none. Every flow is mirrored at random.
        label_smoothing: 0.1 makes 0.95 and 0.05 of the labels: a less certain phi, whose gradient saturates later.
        pretrained: see `FlowDiscriminator`.
        device: where to train.
        seed: of split, first weights, order and augmentation.
        on_epoch: called with each epoch's result; may raise to abort.

    Raises:
        ValueError: fewer than two clips of a class; flows that are empty, of several sizes, or not finite; a loss that
            is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    real_train, real_val = _split(real_flows, "real", val_share, generator)
    fake_train, fake_val = _split(fake_flows, "generated", val_share, generator)
    if len(sizes := {tuple(flow.shape) for flow in (*real_train, *real_val, *fake_train, *fake_val)}) > 1:
        raise ValueError(f"training: flows have several sizes, {sorted(sizes)}. Scale all clips to one.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FlowDiscriminator(config, pretrained).to(device)
    average = ModelEmaV3(model, decay=ema_decay, use_warmup=True) if ema_decay else None
    optimizer = torch.optim.AdamW(_parameter_groups(model, weight_decay), lr=lr)
    half = max(1, batch // 2)
    steps = math.ceil(max(len(real_train), len(fake_train)) / half)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_cosine(epochs * steps, warmup))

    history: list[EpochResult] = []
    best, best_model = None, model
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for real, fake in zip(
                _batches(real_train, steps, half, generator), _batches(fake_train, steps, half, generator), strict=True,
        ):
            flow = torch.cat([_augment(side, blur, noise, generator) for side in (real, fake)]).to(device)
            label = (torch.arange(len(flow), device=device) < len(real)).float()
            target = label * (1 - label_smoothing) + label_smoothing / 2
            loss = F.binary_cross_entropy_with_logits(model(flow), target)
            if not torch.isfinite(loss):
                raise ValueError(f"training: the loss is {loss.item()} in epoch {epoch}. Lower the learning rate.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if average is not None:
                average.update(model, step=schedule.last_epoch)
            total += loss.item()
        candidate = average.module if average is not None else model
        result = EpochResult(epoch, total / steps, *_evaluate(candidate, real_val, fake_val, batch, device))
        history.append(result)
        # The loss, not the AUROC: with few clips held out, an untrained net reaches a high AUROC by luck.
        if best is None or result.val_loss < best.val_loss:
            best, best_model = result, copy.deepcopy(candidate)
        if on_epoch is not None:
            on_epoch(result)
        if epoch - best.epoch >= patience:
            break
    if best is None:
        raise ValueError(f"training: epochs is {epochs}, expected at least 1.")
    return TrainingResult(best_model.requires_grad_(False).eval(), best, history)


def auroc(real: Tensor, fake: Tensor) -> float:
    """Probability that a real sample's score is above a fake's, ties counting half (Mann-Whitney); (N,), (M,)."""
    ordered = fake.sort().values
    below = torch.searchsorted(ordered, real.contiguous(), right=False)
    up_to = torch.searchsorted(ordered, real.contiguous(), right=True)
    return ((below + up_to).double().mean() / 2 / len(fake)).item()


def _split(
        clips: Sequence[Tensor] | Tensor, side: str, share: float, generator: torch.Generator,
) -> tuple[list[Tensor], list[Tensor]]:
    """Single flows (2, H, W) of the clips to train on and of those held out."""
    clips = list(clips)
    if len(clips) < 2:
        raise ValueError(f"training: {len(clips)} {side} clip(s), expected at least 2: one to train, one to hold out.")
    for number, clip in enumerate(clips):
        if clip.ndim != 4 or clip.shape[1] != 2 or not len(clip):
            shape = tuple(clip.shape)
            raise ValueError(f"training: {side} clip {number} has shape {shape}, expected (P, 2, H, W), P > 0.")
        if not torch.isfinite(clip).all():
            raise ValueError(f"training: {side} clip {number} has NaN or infinite flow. Leave it out.")
    order = torch.randperm(len(clips), generator=generator).tolist()
    held_out = min(len(clips) - 1, max(1, round(share * len(clips))))
    train, val = ([flow for i in part for flow in clips[i]] for part in (order[held_out:], order[:held_out]))
    return train, val


def _batches(flows: list[Tensor], steps: int, size: int, generator: torch.Generator) -> Iterable[list[Tensor]]:
    """`steps` batches in random order; a smaller class begins again, newly shuffled."""
    order: list[int] = []
    for _ in range(steps):
        while len(order) < size:
            order += torch.randperm(len(flows), generator=generator).tolist()
        chosen, order = order[:size], order[size:]
        yield [flows[i] for i in chosen]


def _augment(flows: list[Tensor], blur: float, noise: float, generator: torch.Generator) -> Tensor:
    flow = torch.stack(flows)
    left_right, up_down = torch.rand(2, len(flow), generator=generator) < 0.5
    return degrade(flip(flow, left_right, up_down), blur, noise, generator)


def _parameter_groups(model: FlowDiscriminator, weight_decay: float) -> list[dict[str, Any]]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _warmup_cosine(total: int, warmup: float) -> Callable[[int], float]:
    rising = max(1, round(total * warmup))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))

    return factor


@torch.no_grad()
def _evaluate(
        model: FlowDiscriminator, real: list[Tensor], fake: list[Tensor], batch: int, device: torch.device | str,
) -> tuple[float, float, float]:
    """Loss, AUROC and accuracy; both classes weigh the same."""
    model.eval()
    scores = [
        torch.cat([model(torch.stack(side[i:i + batch]).to(device)).float().cpu() for i in range(0, len(side), batch)])
        for side in (real, fake)
    ]
    loss = (F.softplus(-scores[0]).mean() + F.softplus(scores[1]).mean()).item() / 2
    accuracy = ((scores[0] > 0).float().mean() + (scores[1] <= 0).float().mean()).item() / 2
    return loss, auroc(scores[0], scores[1]), accuracy
