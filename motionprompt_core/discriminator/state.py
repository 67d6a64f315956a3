"""What a training has reached, in memory and in a file: stopped at any moment, it loses one epoch at most."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from ..media.files import read_safetensors, write_safetensors
from .model import DiscriminatorConfig, FlowDiscriminator


@dataclass(frozen=True)
class EpochResult:
    """One epoch. Losses are nats; the rest is of held-out clips, see `judge`."""

    epoch: int
    train_loss: float
    val_loss: float
    auroc: float
    accuracy: float
    calibration_error: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class TrainingState:
    """Everything that changes while a discriminator is trained.

    Attributes:
        history: results of the epochs that are done.
        best: the one with the lowest held-out loss. The loss, not the AUROC: with few clips held out, an untrained net
            reaches a high AUROC by luck.
        best_model: its network.
    """

    def __init__(
        self,
        model: FlowDiscriminator,
        average: ModelEmaV3 | None,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LambdaLR,
        generator: torch.Generator,
    ):
        self.model, self.average = model, average
        self.optimizer, self.schedule, self.generator = optimizer, schedule, generator
        self.history: list[EpochResult] = []
        self.best: EpochResult | None = None
        self.best_model = copy.deepcopy(model)

    def add(self, result: EpochResult, model: FlowDiscriminator) -> None:
        """Notes an epoch's result, and its network if it is the best so far."""
        self.history.append(result)
        if self.best is None or result.val_loss < self.best.val_loss:
            self.best = result
            self.best_model.load_state_dict(model.state_dict())

    def save(self, path: str | Path, settings: str) -> None:
        """Writes the state to a .safetensors, all or nothing; `settings` name the training that it belongs to."""
        tensors = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        tensors |= {f"best.{key}": value for key, value in self.best_model.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{key}": value for key, value in self.average.module.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{key}": value for key, value in moments.items()}
        tensors["generator"] = self.generator.get_state()
        history = json.dumps([epoch.to_dict() for epoch in self.history])
        write_safetensors(tensors, path, {"settings": settings, "history": history})

    def resume(self, path: str | Path, settings: str) -> None:
        """Goes on from `path` if it is there and belongs to the same training.

        Raises:
            ValueError: it belongs to another one, or is damaged.
        """
        if not Path(path).is_file():
            return
        tensors, header = read_safetensors(path, "checkpoint of a training")
        if header.get("settings") != settings:
            raise ValueError(
                f"checkpoint {path} belongs to a training with other clips or settings. Remove it, or name another one."
            )

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}

        self.model.load_state_dict(part("model"))
        self.best_model.load_state_dict(part("best"))
        if self.average is not None:
            self.average.module.load_state_dict(part("average"))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in part("optimizer").items():
            number, name = key.split(".", 1)
            moments.setdefault(int(number), {})[name] = value
        self.generator.set_state(tensors["generator"])
        self.history[:] = [EpochResult(**values) for values in json.loads(header["history"])]
        self.best = min(self.history, key=lambda epoch: epoch.val_loss)
        steps = max((int(state["step"]) for state in moments.values()), default=0)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.schedule.last_epoch = steps
        groups = zip(self.optimizer.param_groups, self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True)
        for group, lr, factor in groups:
            group["lr"] = lr * factor(steps)


def best_so_far(path: str | Path, config: DiscriminatorConfig) -> tuple[FlowDiscriminator, EpochResult] | None:
    """The best network, frozen, and its epoch of a training that was stopped; None if it ended no epoch."""
    if not Path(path).is_file():
        return None
    tensors, header = read_safetensors(path, "checkpoint of a training")
    model = FlowDiscriminator(config)
    model.load_state_dict({key.removeprefix("best."): t for key, t in tensors.items() if key.startswith("best.")})
    history = [EpochResult(**values) for values in json.loads(header["history"])]
    return model.requires_grad_(False).eval(), min(history, key=lambda epoch: epoch.val_loss)
