"""Training phi as the paper does: binary cross-entropy between flows of real and generated videos, 20 epochs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay  # pyright: ignore[reportPrivateImportUsage]
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from .cache import FlowClips
from .flows import degrade, flip
from .model import DiscriminatorConfig, FlowDiscriminator
from .state import EpochResult, TrainingState

# What keeps a network from telling clips by anything but their motion, see `train_discriminator`.
ROBUST: dict[str, Any] = {"blur": 1.5, "noise": 0.1, "still_share": 0.04, "label_smoothing": 0.1}
SIZES: dict[str, dict[str, Any]] = {  # 0.9 M parameters; ViT-Ti, 5.5 M; ViT-S, 22 M
    "small": {},
    "medium": dict(embed_dim=192, depth=12, num_heads=3, mlp_hidden=192),
    "large": dict(backbone="vit_small_patch16_224", img_size=224, embed_dim=384, depth=12, num_heads=6, mlp_hidden=384),
}

Prepare = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TrainingResult:
    """The best network (frozen, evaluation mode), its epoch, and the history. `best.auroc` belongs into its file."""

    model: FlowDiscriminator
    best: EpochResult
    history: list[EpochResult]


class Clips(Protocol):
    """Flows, clip by clip: a list of tensors (P, 2n, H, W), n = `DiscriminatorConfig.flows`, one tensor
    (N, P, 2n, H, W), or `FlowClips` of the cache."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


def train_discriminator(
    real_flows: Clips,
    fake_flows: Clips,
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
    still_share: float = 0.0,
    label_smoothing: float = 0.0,
    pretrained: bool | str | Path = False,
    start: FlowDiscriminator | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    held_out: tuple[Clips, Clips] | None = None,
    checkpoint: str | Path | None = None,
    prepare: Prepare | None = None,
    on_epoch: Callable[[EpochResult], object] | None = None,
    on_batch: Callable[[int, int], object] | None = None,
) -> TrainingResult:
    """Train on flows, px, see `Clips`; those of the cache are read batch by batch.

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
        still_share: share of the flows, of either class, that are replaced by no motion at all: standing still is then
            no sign of either, and guidance gains nothing by stilling the video.
        label_smoothing: 0.1 makes 0.95 and 0.05 of the labels: a less certain phi, whose gradient saturates later.
        pretrained: see `FlowDiscriminator`.
        start: a network of the same architecture whose weights are the first ones.
        device: where to train.
        seed: of split, first weights, order and augmentation.
        held_out: real and generated clips to judge each epoch by, instead of a share of the others.
        checkpoint: a .safetensors that is written after each epoch, and from which the same training goes on if it
            was stopped. It ends with the same weights as a training that was not.
        prepare: turns each batch's real and generated flows (B, 2, H, W) into those that are trained on.
        on_epoch: called with each epoch's result; may raise to abort.
        on_batch: called after each batch with (batches done, of all epochs); may raise to abort.

    Raises:
        ValueError: fewer than two clips of a class; flows that are empty, of several sizes, or not finite; a loss that
            is not finite.
    """
    chosen = (epochs, batch, lr, weight_decay, warmup, ema_decay, val_share, blur, noise, still_share, label_smoothing)
    named = [seed, *([prepare.__name__] if prepare else []), *(["start"] if start else [])]
    settings = json.dumps([asdict(config), len(real_flows), len(fake_flows), *chosen, *named])
    generator = torch.Generator().manual_seed(seed)
    sides = (real_flows, fake_flows)
    (real_train, fake_train), (real_val, fake_val) = _split(sides, held_out, val_share, generator, config.flows)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FlowDiscriminator(config, pretrained).to(device)
    if start is not None:
        model.load_state_dict(start.state_dict())
    average = ModelEmaV3(model, decay=ema_decay, use_warmup=True) if ema_decay else None
    optimizer = torch.optim.AdamW(param_groups_weight_decay(model, weight_decay), lr=lr)
    half = max(1, batch // 2)
    steps = math.ceil(max(len(real_train), len(fake_train)) / half)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_cosine(epochs * steps, warmup))

    state = TrainingState(model, average, optimizer, schedule, generator)
    if checkpoint is not None:
        state.resume(checkpoint, settings)
    history = state.history
    for epoch in range(len(history), epochs):
        if state.best is not None and epoch - 1 - state.best.epoch >= patience:
            break
        model.train()
        total = 0.0
        for real, fake in zip(
            _batches(real_train, steps, half, generator), _batches(fake_train, steps, half, generator), strict=True
        ):
            pair = (real, fake) if prepare is None else prepare(torch.stack(real), torch.stack(fake), generator)
            flow = torch.cat([_augment(side, blur, noise, still_share, generator) for side in pair]).to(device)
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
            if on_batch is not None:
                on_batch(schedule.last_epoch, epochs * steps)
        candidate = average.module if average is not None else model
        result = EpochResult(epoch, total / steps, **judge(candidate, real_val, fake_val, batch))
        state.add(result, candidate)
        if checkpoint is not None:
            state.save(checkpoint, settings)
        if on_epoch is not None:
            on_epoch(result)
    if state.best is None:
        raise ValueError(f"training: epochs is {epochs}, expected at least 1.")
    return TrainingResult(state.best_model.requires_grad_(False).eval(), state.best, history)


def auroc(real: Tensor, fake: Tensor) -> float:
    """Probability that a real sample's score is above a fake's, ties counting half (Mann-Whitney); (N,), (M,)."""
    from scipy.stats import mannwhitneyu  # comes with ComfyUI; slow to import

    found = mannwhitneyu(real.double().cpu().numpy(), fake.double().cpu().numpy())
    return float(found.statistic / (len(real) * len(fake)))


class _Flows:
    """Single examples (2n, H, W) of all clips or those chosen, read when they are asked for."""

    def __init__(self, clips: Clips, side: str, flows: int, chosen: list[int] | None = None):
        self.clips, self.sizes = clips, set()
        self.index: list[tuple[int, int]] = []
        for number in range(len(clips)) if chosen is None else chosen:
            clip = clips[number]
            if clip.ndim != 4 or clip.shape[1] != 2 * flows or not len(clip):
                shape = tuple(clip.shape)
                raise ValueError(
                    f"training: {side} clip {number} has shape {shape}, expected (P, {2 * flows}, H, W), P > 0."
                )
            if not torch.isfinite(clip).all():
                raise ValueError(f"training: {side} clip {number} has NaN or infinite flow. Leave it out.")
            self.sizes.add(tuple(clip.shape[1:]))
            self.index += [(number, pair) for pair in range(len(clip))]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Tensor:
        clip, pair = self.index[number]
        return self.clips.pair(clip, pair) if isinstance(self.clips, FlowClips) else self.clips[clip][pair]


def _batches(flows: _Flows, steps: int, size: int, generator: torch.Generator) -> Iterable[list[Tensor]]:
    """`steps` batches in random order; a smaller class begins again, newly shuffled."""
    order: list[int] = []
    for _ in range(steps):
        while len(order) < size:
            order += torch.randperm(len(flows), generator=generator).tolist()
        chosen, order = order[:size], order[size:]
        yield [flows[i] for i in chosen]


def _augment(
    flows: Sequence[Tensor] | Tensor, blur: float, noise: float, still_share: float, generator: torch.Generator
) -> Tensor:
    flow = torch.stack(list(flows))
    if still_share > 0:
        flow = flow * (torch.rand(len(flow), 1, 1, 1, generator=generator) >= still_share)
    left_right, up_down = torch.rand(2, len(flow), generator=generator) < 0.5
    return degrade(flip(flow, left_right, up_down), blur, noise, generator)


def _split(
    sides: tuple[Clips, Clips],
    held_out: tuple[Clips, Clips] | None,
    share: float,
    generator: torch.Generator,
    flows: int,
) -> tuple[list[_Flows], list[_Flows]]:
    """Real and generated flows to train on, and those to judge each epoch by.

    Raises:
        ValueError: the clips are too few, or their flows of several sizes.
    """
    train, val = [], []
    for clips, side in zip(sides, ("real", "generated"), strict=True):
        if held_out is not None:
            train.append(_Flows(clips, side, flows))
            continue
        if len(clips) < 2:
            raise ValueError(
                f"training: {len(clips)} {side} clip(s), expected at least 2: one to train, one to hold out."
            )
        order, kept = torch.randperm(len(clips), generator=generator).tolist(), max(1, round(share * len(clips)))
        kept = min(len(clips) - 1, kept)
        train.append(_Flows(clips, side, flows, order[kept:]))
        val.append(_Flows(clips, side, flows, order[:kept]))
    val += [_Flows(clips, "held-out", flows) for clips in held_out or ()]
    sizes = set().union(*(part.sizes for part in (*train, *val)))
    if len(sizes) > 1:
        raise ValueError(f"training: flows have several sizes, {sorted(sizes)}. Scale all clips to one.")
    return train, val


def _warmup_cosine(total: int, warmup: float) -> Callable[[int], float]:
    rising = max(1, round(total * warmup))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))

    return factor


@torch.no_grad()
def judge(model: FlowDiscriminator, real: _Flows, fake: _Flows, batch: int = 32) -> dict[str, float]:
    """How well `model` tells flows apart; both classes weigh the same.

    Returns:
        val_loss (nats), auroc, accuracy (at phi = 1/2), calibration_error (expected difference between phi and the
        share of real flows that got it, in ten bins; 0 is perfect).
    """
    model.eval()
    device = next(model.parameters()).device

    def scores(flows: _Flows) -> Tensor:
        starts = range(0, len(flows), batch)
        parts = [torch.stack([flows[i] for i in range(s, min(s + batch, len(flows)))]) for s in starts]
        return torch.cat([model(part.to(device)).float().cpu() for part in parts])

    logits_real, logits_fake = scores(real), scores(fake)
    return {
        "val_loss": (F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean()).item() / 2,
        "auroc": auroc(logits_real, logits_fake),
        "accuracy": ((logits_real > 0).float().mean() + (logits_fake <= 0).float().mean()).item() / 2,
        "calibration_error": calibration_error(logits_real.sigmoid(), logits_fake.sigmoid()),
    }


def judge_clips(model: FlowDiscriminator, real: Clips, fake: Clips) -> dict[str, float]:
    """`judge` on all flows of clips that the network has not been trained on, and `clip_auroc`, of `clip_score`."""
    flows = (_Flows(real, "real", model.config.flows), _Flows(fake, "generated", model.config.flows))
    return {**judge(model, *flows), "clip_auroc": auroc(clip_scores(model, real), clip_scores(model, fake))}


@torch.no_grad()
def clip_scores(model: FlowDiscriminator, clips: Clips) -> Tensor:
    """`clip_score` of each clip's flows, (N,) on the CPU."""
    device = next(model.parameters()).device
    return torch.stack([clip_score(model(clips[i].to(device)).float()).cpu() for i in range(len(clips))])


def clip_score(logits: Tensor) -> Tensor:
    """One logit for a clip's flows (P,): above 0 is rather real.

    Of the odds of being generated, exp(-logit), the power mean of 1/2: faults come and go, so a clip's worst moments
    weigh more than in the mean logit, where what shows between few frames drowns; but no single flow decides.
    """
    return 2 * (math.log(len(logits)) - torch.logsumexp(-logits / 2, dim=0))


def calibration_error(real: Tensor, fake: Tensor, bins: int = 10) -> float:
    """Expected calibration error of phi (N,), (M,) in [0, 1], both classes weighing the same (Guo et al. 2017)."""
    phi = torch.cat((real, fake)).double()
    is_real = (torch.arange(len(phi)) < len(real)).double()
    weight = torch.where(is_real > 0, 0.5 / len(real), 0.5 / len(fake))
    place = (phi * bins).long().clamp(max=bins - 1)
    surplus = torch.zeros(bins, dtype=torch.double).index_add_(0, place, weight * (phi - is_real))
    return surplus.abs().sum().item()
