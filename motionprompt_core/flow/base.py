"""Optical flow between two frames, differentiable in both, and the registry of the models that estimate it.

All models share one interface, so that guidance, training and metrics never know which they hold. The discriminator
must be used with the flow model that it was trained with: their flows differ in sharpness and in how they fail.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FlowModel(nn.Module):
    """A frozen flow estimator. Subclasses set the attributes and write `estimate`.

    Attributes:
        name: the identity kept in a discriminator's metadata, e.g. "raft_large".
        min_size: smallest height and width of a frame, px.
        multiple: the network's stride; other sizes are padded by repeating the border, and the flow is cropped.
        cost: of one flow, forwards and backwards, in evaluations of one frame by SD1.5's UNet (frames of 512 px), for
            what a run is said to cost.
        grid: "source" if the flow at a pixel is the motion of what `a` shows there, "middle" if it is the motion of
            what a frame half-way between would show there (RIFE). Guidance and discriminator do not care; warping does.
        three: it looks at the frame before, too, and finds the motion to both in one pass; see `to_both`.
    """

    name: str
    min_size: int
    multiple: int
    cost: float
    grid: str = "source"
    three: bool = False

    def freeze(self) -> FlowModel:
        self.requires_grad_(False)
        return self.train(False)

    def train(self, mode: bool = True) -> FlowModel:
        """Stay in evaluation mode, whatever a caller asks of the module that holds this one."""
        return super().train(False)

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError unless frames of this size (px) can be handled."""
        if min(height, width) < self.min_size:
            fitting = [n for n in available_flow_models() if min(height, width) >= _REGISTRY[n].min_size]
            raise ValueError(
                f"flow model {self.name}: frames are {width}x{height} px, expected at least "
                f"{self.min_size}x{self.min_size}. Render larger frames, or choose a flow model for small ones "
                f"({', '.join(fitting) or 'none fits'})."
            )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The flow alone; see `with_confidence`."""
        return self.with_confidence(a, b)[0]

    def with_confidence(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor | None]:
        """Motion from `a` to `b`, and how sure the model is of it.

        Args:
            a, b: frames (B, 3, H, W), RGB in [0, 1]; values outside are allowed, so that nothing needs clamping.

        Returns:
            (B, 2, H, W), px, channel 0 to the right, channel 1 down; float32, or float64 for a float64 model.
            (B, 1, H, W) in [0, 1], or None from a model that does not say.

        Raises:
            ValueError: the frames differ in shape, have not three channels, or are too small.
        """
        height, width = a.shape[-2:]
        flow = self.estimate(*self._padded(a, b))[..., :height, :width]
        flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
        return flow[:, :2], flow[:, 2:] if flow.shape[1] > 2 else None

    def to_both(self, before: Tensor, here: Tensor, after: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of a model of three frames: motion from `here` to the others (B, 2, 2, H, W) and confidence (B, 2, 1, H, W).

        Arguments, units and errors are those of `with_confidence`.
        """
        height, width = here.shape[-2:]
        found = self.estimate_both(*self._padded(before, here, after))[..., :height, :width].float()
        return found[:, :, :2], found[:, :, 2:] if found.shape[2] > 2 else None

    def _padded(self, *frames: Tensor) -> list[Tensor]:
        """Frames of a size that the network takes, in its precision."""
        shape = frames[0].shape
        if any(x.shape != shape for x in frames) or len(shape) != 4 or shape[1] != 3:
            raise ValueError(
                f"flow model {self.name}: expected frame batches of one shape (B, 3, H, W), got "
                f"{' and '.join(str(tuple(x.shape)) for x in frames)}."
            )
        height, width = shape[-2:]
        self.check_size(height, width)
        padding = (0, -width % self.multiple, 0, -height % self.multiple)
        parameter = next(self.parameters(), None)
        dtype = parameter.dtype if parameter is not None else torch.promote_types(frames[0].dtype, torch.float32)
        return [F.pad(x.to(dtype), padding, mode="replicate") if any(padding) else x.to(dtype) for x in frames]

    def estimate(self, a: Tensor, b: Tensor) -> Tensor:
        """The flow, for frames of a fitting size in the model's own precision; a third channel is the confidence."""
        raise NotImplementedError

    def estimate_both(self, before: Tensor, here: Tensor, after: Tensor) -> Tensor:
        """Of a model of three frames, both flows (B, 2, 2 or 3, H, W) likewise."""
        raise NotImplementedError


@dataclass(frozen=True)
class FlowEntry:
    """What the registry knows of a flow model before it is made.

    Attributes:
        name: what it is chosen by, and the identity kept in a discriminator's metadata.
        build: makes it with its weights from (a .safetensors or None, whether a download is allowed).
        min_size: smallest height and width of a frame, px.
        installed: whether its weights are here or can be fetched; it is offered only then.
    """

    name: str
    build: Callable[[Path | None, bool], FlowModel]
    min_size: int
    installed: Callable[[], bool]


DEFAULT = "lucas_kanade_coarse"
_REGISTRY: dict[str, FlowEntry] = {}

Builder = Callable[[Path | None, bool], FlowModel]


def register_flow_model(
    name: str, min_size: int, installed: Callable[[], bool] = lambda: True
) -> Callable[[Builder], Builder]:
    """Registers the decorated function, which makes the flow model `name`; see `FlowEntry`."""

    def register(build: Builder) -> Builder:
        if name in _REGISTRY:
            raise ValueError(f"There is a flow model {name!r} already. Register yours under another name.")
        _REGISTRY[name] = FlowEntry(name, build, min_size, installed)
        return build

    return register


def available_flow_models(files: Collection[str] = ()) -> list[str]:
    """The names that one may choose from, the default first.

    Args:
        files: names of weight files that are there; `<name>.safetensors` makes a model available.
    """
    found = [e.name for e in _REGISTRY.values() if f"{e.name}.safetensors" in files or e.installed()]
    return sorted(found, key=lambda name: name != DEFAULT)


def load_flow_model(name: str, path: str | Path | None = None, *, download: bool = False) -> FlowModel:
    """Make a flow model with its weights, frozen, on the CPU.

    Args:
        name: one that is registered, such as those of `available_flow_models()`.
        path: a local .safetensors with the weights, for models that have any. Without it they are looked for where the
            model's own module says.
        download: let RAFT's weights be fetched if they are not there yet. The only use of the network.

    Raises:
        FileNotFoundError: the weights are not on this machine; the message says how to get them.
        ValueError: unknown name, or a file that does not hold this model's weights.
    """
    if name not in _REGISTRY:
        raise ValueError(f"flow model {name!r} is unknown, expected one of {', '.join(available_flow_models())}.")
    return _REGISTRY[name].build(None if path is None else Path(path), download)
