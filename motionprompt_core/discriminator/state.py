"""What a training has reached, in memory and in a file: stopped at any moment, it loses one epoch at most."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3

from ..media.files import written_whole
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
        self.history: list[EpochResult] = []
        self.best_model, self.generator = copy.deepcopy(model), generator
        self._parts: dict[str, Any] = {
            "model": model,
            "best": self.best_model,
            "optimizer": optimizer,
            "schedule": schedule,
            **({} if average is None else {"average": average.module}),
        }

    @property
    def best(self) -> EpochResult | None:
        return min(self.history, key=lambda epoch: epoch.val_loss, default=None)

    def add(self, result: EpochResult, model: FlowDiscriminator) -> None:
        """Notes an epoch's result, and its network if it is the best so far."""
        self.history.append(result)
        if self.best is result:
            self.best_model.load_state_dict(model.state_dict())

    def save(self, path: str | Path, settings: str) -> None:
        """Writes the state in one step; `settings` name the training that it belongs to."""
        state = {"settings": settings, "history": [epoch.to_dict() for epoch in self.history]}
        state["generator"] = self.generator.get_state()
        with written_whole(path) as temporary:
            torch.save({**state, **{name: part.state_dict() for name, part in self._parts.items()}}, temporary)

    def resume(self, path: str | Path, settings: str) -> None:
        """Goes on from `path` if it is there and belongs to the same training.

        Raises:
            ValueError: it belongs to another one, or is damaged.
        """
        if not Path(path).is_file():
            return
        state = _read(path)
        if state["settings"] != settings:
            raise ValueError(
                f"checkpoint {path} belongs to a training with other clips or settings. Remove it, or name another one."
            )
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.history[:] = [EpochResult(**values) for values in state["history"]]


def best_so_far(path: str | Path, config: DiscriminatorConfig) -> tuple[FlowDiscriminator, EpochResult] | None:
    """The best network, frozen, and its epoch of a training that was stopped; None if it ended no epoch."""
    if not Path(path).is_file():
        return None
    state = _read(path)
    model = FlowDiscriminator(config)
    model.load_state_dict(state["best"])
    history = [EpochResult(**values) for values in state["history"]]
    return model.requires_grad_(False).eval(), min(history, key=lambda epoch: epoch.val_loss)


def _read(path: str | Path) -> dict[str, Any]:
    """A saved state: tensors, numbers and texts only, so that no file can run code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged archive raises
        raise ValueError(
            f"checkpoint {path} is damaged ({type(error).__name__}). Remove it, and begin anew."
        ) from error
