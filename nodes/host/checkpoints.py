"""Activation checkpointing of a diffusion model's blocks, for when memory is short.

Only the blocks' inputs are kept; the backward pass runs each block again. What a block sees must then be what it saw
the first time, although other code has moved on: AnimateDiff-Evolved replaces GroupNorm during an evaluation and
moves its motion modules from one context window to the next.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import comfy.ops
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from .hooks import HookedWeights

# Where AnimateDiff-Evolved puts its GroupNorm over all frames (motion models v1 and v2).
_GROUP_NORMS = (
    (torch.nn.GroupNorm, "forward"),
    (comfy.ops.disable_weight_init.GroupNorm, "forward_comfy_cast_weights"),
)


@contextmanager
def checkpointed(
    found: Iterable[nn.Module],
    again: Callable[[], AbstractContextManager[object]],
    in_place: bool = False,
    whole: bool = False,
    hooked: HookedWeights | None = None,
) -> Iterator[None]:
    """Within it these blocks are checkpointed.

    Args:
        found: blocks, none inside of another; a model's family knows them.
        again: makes a context manager to run a block's second forward pass in, as the backward pass may be on another
            thread.
        in_place: the blocks change their input in place (transformers do); takes more memory when run again.
        whole: for a network whose blocks are checkpointed as well: keeps nothing of them until it is run again.
        hooked: the weights that change from one prompt to the next, if any do.
    """
    found = list(found)
    kind = _WholeCheckpoint if whole else _InPlaceCheckpoint if in_place else _Checkpoint
    try:
        for block in found:
            block.__dict__["forward"] = kind(block, block.forward, again, hooked)
        yield
    finally:
        for block in found:
            forward = block.__dict__.pop("forward", None)
            if isinstance(forward, _Checkpoint) and forward.was_own:
                block.__dict__["forward"] = forward.forward


class _Checkpoint:
    """A block's forward, run under a checkpoint."""

    def __init__(
        self,
        block: nn.Module,
        forward: Callable[..., Any],
        again: Callable[[], AbstractContextManager[object]],
        hooked: HookedWeights | None = None,
    ):
        self.block = block
        self.forward = forward
        self.was_own = "forward" in block.__dict__
        self.again = again
        self.hooked = hooked

    def __call__(self, *args: object, **kwargs: Any) -> object:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        # A skip connection is an input too, and a ControlNet's output may be added to it in place later.
        args = tuple(_copy(arg) for arg in args)
        seen = _World(self.block, args, kwargs, self.hooked)
        first = True

        def run(*args: Any, **kwargs: Any) -> object:
            nonlocal first
            if first:
                first = False
                return self.forward(*args, **kwargs)
            with self.again(), seen.restored():
                return self.forward(*(_shallow(arg) for arg in seen.filled(args)), **seen.keywords)

        return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


class _InPlaceCheckpoint(_Checkpoint):
    """The same for blocks that change their input in place."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        # A skip connection is an input too, and a ControlNet's output may be added to it in place later.
        args = tuple(_copy(arg) for arg in args)
        seen = _World(self.block, args, kwargs, self.hooked)

        def again() -> None:
            with self.again(), seen.restored():
                self.forward(*(_copy(_shallow(arg)) for arg in seen.filled(args)), **seen.keywords)

        # Transformers change their input in place.
        with _Recomputed(again, seen.put_weights_back).saved_tensors():
            return self.forward(*(_copy(arg) for arg in args), **kwargs)


class _WholeCheckpoint(_Checkpoint):
    """A network's forward without a graph; the backward pass runs it again with one, and through that."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        leaves, structure = tree_flatten((args, kwargs))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
        seen = _World(self.block, (), {}, self.hooked)

        def run(*inputs: Tensor) -> Tensor:
            filled = list(leaves)
            for place, value in zip(places, inputs, strict=True):
                filled[place] = value
            # New containers: blocks use up a ControlNet's lists, and write into the options.
            args, kwargs = tree_unflatten(filled, structure)
            return self.forward(*args, **kwargs)

        def again(*inputs: Tensor) -> Tensor:
            with self.again(), seen.restored():
                return run(*inputs)

        return _WholeFunction.apply(run, again, *(leaves[place] for place in places))


class _WholeFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[..., Tensor], again: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.again, ctx.inputs = again, inputs
        return run(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [tensor.detach().requires_grad_() for tensor in ctx.inputs]
        with torch.enable_grad():
            out = ctx.again(*inputs)
        return None, None, *torch.autograd.grad(out, inputs, gradients, allow_unused=True)


class _Recomputed:
    """What a block saves for the backward pass, made anew by running the block again when it is asked for.

    `torch.utils.checkpoint` does so too, but keeps references while the block runs again, which are of no use where
    layers go on to change those tensors in place.
    """

    def __init__(self, again: Callable[[], None], put_weights_back: Callable[[], None]):
        self.again = again
        self.put_weights_back = put_weights_back
        self.count = 0
        self.found: dict[int, Tensor] = {}

    def saved_tensors(self) -> AbstractContextManager[None]:
        return torch.autograd.graph.saved_tensors_hooks(self._number, self._tensor)

    def _number(self, tensor: Tensor) -> Tensor | int:
        if isinstance(tensor, nn.Parameter):
            return tensor
        self.count += 1
        return self.count - 1

    def _tensor(self, saved: Tensor | int) -> Tensor:
        if isinstance(saved, Tensor):
            self.put_weights_back()
            return saved
        if saved not in self.found:
            self._run_again()
        return self.found.pop(saved)

    def _run_again(self) -> None:
        made: list[Tensor] = []

        def keep(tensor: Tensor) -> None:  # not the tensor: a node that saves its own result would hold itself for ever
            if not isinstance(tensor, nn.Parameter):
                made.append(tensor if tensor.is_leaf else tensor.detach().clone())

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda nothing: nothing):
            self.again()
        if len(made) != self.count:
            raise RuntimeError(
                f"MotionPrompt: a block of the model saved {self.count} tensors, but {len(made)} when it was run "
                "again. Set checkpointing to off."
            )
        self.found = dict(enumerate(made))


class _World:
    """What surrounds a block when it runs: options, GroupNorm, the plain attributes of its layers, and the random
    numbers that layers draw (token merging, tiles of changing size)."""

    def __init__(
        self, block: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], hooked: HookedWeights | None
    ):
        self.hooked, self.hooks = hooked, None if hooked is None else hooked.hooks
        self.options = {i: _shallow(arg) for i, arg in enumerate(args) if type(arg) is dict}
        self.keywords = {name: _shallow(value) for name, value in kwargs.items()}
        self.norms = [kind.__dict__[name] for kind, name in _GROUP_NORMS]
        self.layers = [(layer, _plain(layer)) for layer in block.modules()]
        self.device = next((weight.device for weight in block.parameters()), torch.device("cpu"))
        self.numbers = _random_numbers(self.device)

    def filled(self, args: tuple[object, ...]) -> list[object]:
        return [self.options.get(i, arg) for i, arg in enumerate(args)]

    def put_weights_back(self) -> None:
        """Those of the LoRA hooks; they stay, as the backward pass through the block comes next."""
        if self.hooked is not None:
            self.hooked.put_back(self.hooks)

    @contextmanager
    def restored(self) -> Iterator[None]:
        norms = [kind.__dict__[name] for kind, name in _GROUP_NORMS]
        layers = [(layer, _plain(layer)) for layer, _ in self.layers]
        numbers = _random_numbers(self.device)
        self.put_weights_back()
        self._put(self.norms, self.layers)
        _draw_from(self.device, self.numbers)
        try:
            yield
        finally:
            self._put(norms, layers)
            _draw_from(self.device, numbers)

    @staticmethod
    def _put(norms: list[object], layers: list[tuple[nn.Module, dict[str, object]]]) -> None:
        for (kind, name), norm in zip(_GROUP_NORMS, norms, strict=True):
            setattr(kind, name, norm)
        for layer, values in layers:
            layer.__dict__.update(values)


@contextmanager
def random_numbers_kept(device: torch.device) -> Iterator[None]:
    """What is drawn within it is drawn again after it: layers that draw (token merging) give the sampler what they
    would have given without."""
    numbers = _random_numbers(device)
    try:
        yield
    finally:
        _draw_from(device, numbers)


def _random_numbers(device: torch.device) -> tuple[Any, ...]:
    """Where the generators are: Python's, PyTorch's, and the device's own."""
    own = None if device.type in ("cpu", "meta") else torch.get_device_module(device)
    return random.getstate(), torch.get_rng_state(), None if own is None else own.get_rng_state(device)


def _draw_from(device: torch.device, numbers: tuple[Any, ...]) -> None:
    random.setstate(numbers[0])
    torch.set_rng_state(numbers[1])
    if numbers[2] is not None:
        torch.get_device_module(device).set_rng_state(numbers[2], device)


def _plain(layer: nn.Module) -> dict[str, object]:
    return {name: value for name, value in layer.__dict__.items() if not name.startswith("_") and name != "forward"}


def _copy(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value


def _shallow(value: object) -> object:
    """A copy of nested options, two levels deep; anything else as it is."""
    if type(value) is not dict:
        return value
    return {key: dict(item) if type(item) is dict else item for key, item in value.items()}
