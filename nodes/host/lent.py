"""Weights that ComfyUI only lends to a layer, and what the backward pass may read of them.

ComfyUI casts, patches and moves a layer's weight when the layer runs. What it hands out may be a buffer that the next
layer's weight overwrites (streamed weights), or memory that is taken away as soon as something else wants it (dynamic
VRAM). Autograd would keep references to it, and nothing would tell that they had gone stale. So in `weights_returned`

- linear layers and convolutions keep nothing: the backward pass has ComfyUI bring the weight in once more;
- whatever else takes lent memory takes a copy;
- a layer of which neither can be said is refused, by name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.model_management
import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.nn import grad

from .core_functions import newer
from .shared import Shared, replaced

_LOAN = "_motionprompt_loan"
# The gradient for the input from the weight alone, by PyTorch.
_CONVOLUTIONS: dict[object, Callable[..., Tensor]] = {
    torch.conv1d: grad.conv1d_input,
    torch.conv2d: grad.conv2d_input,
    torch.conv3d: grad.conv3d_input,
}
_DEFAULTS = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_ARGUMENTS = ("input", "weight", "bias", *_DEFAULTS)


class Loan:
    """How a weight can be had again that ComfyUI handed to a layer.

    Args:
        layer: of `comfy.ops`. fed: the layer's input. args, kwargs: what else `cast_bias_weight` was called with.
        lent: whether the memory may be overwritten or taken away, and is not just a copy that was cast.
    """

    def __init__(self, layer: nn.Module, fed: Tensor, args: tuple[object, ...], kwargs: dict[str, object], lent: bool):
        self.layer, self.args, self.kwargs, self.lent = layer, args, kwargs, lent
        self.like = torch.empty(0, dtype=fed.dtype, device=fed.device)
        self.state = _state(layer)

    @contextmanager
    def again(self) -> Iterator[Tensor]:
        """The weight, until the block is left.

        Raises:
            RuntimeError: it is no longer what it was when the layer ran.
        """
        if [id(item) for item in self.state] != [id(item) for item in _state(self.layer)]:
            raise RuntimeError(
                f"MotionPrompt: the weights of a layer ({type(self.layer).__qualname__}) were changed between the "
                "evaluation of the model and its gradient, by a LoRA hook or another node pack. Apply LoRAs with a "
                "LoraLoader, or set strength to 0."
            )
        weight, bias, *stream = comfy.ops.cast_bias_weight(self.layer, self.like, *self.args, **self.kwargs)
        try:
            yield _plain(weight)
        finally:
            if stream:
                comfy.ops.uncast_bias_weight(self.layer, weight, bias, stream[0])


def _state(layer: nn.Module) -> list[object]:
    """What a layer's weight is made from, to be compared by identity."""
    found: list[object] = []
    for name in ("weight", "bias"):
        tensor: Any = getattr(layer, name, None)
        versioned = isinstance(tensor, Tensor) and not tensor.is_inference()
        found += [tensor, tensor._version if versioned else None]  # small integers are the same object
        found += [*getattr(layer, f"{name}_function", ()), getattr(layer, f"{name}_lowvram_function", None)]
    return found


def _plain(weight: Any) -> Tensor:
    """A weight in 8 or 4 bits as the numbers that it stands for."""
    return weight if type(weight) in (Tensor, nn.Parameter) else weight.dequantize()


class _Watch(threading.local):
    """What is going on in this thread.

    Attributes:
        depth: of `watching`. handled: ids of layers whose weight came by `cast_bias_weight`.
        copied: how often lent memory was copied. before: the same when a layer began, by its id.
    """

    def __init__(self) -> None:
        self.depth = self.copied = 0
        self.handled: set[int] = set()
        self.before: dict[int, int] = {}


_watch = _Watch()


@contextmanager
def watching() -> Iterator[None]:
    """Within it, in this thread, weights are watched."""
    _watch.depth += 1
    try:
        yield
    finally:
        _watch.depth -= 1


@contextmanager
def weights_returned(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within it, and `watching`, autograd keeps no weight that ComfyUI may take back.

    ComfyUI is also told that gradients are wanted, for which some of its models have code of their own.

    Args:
        modules: all modules that are run, children as well.
    """
    with _core_is_told(), ExitStack() as stack:
        for module in modules:
            if hasattr(module, "comfy_cast_weights"):
                stack.callback(module.register_forward_pre_hook(_begin).remove)
                stack.callback(module.register_forward_hook(_check).remove)
        yield


@contextmanager
def _core_told() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(replaced(comfy.ops, "cast_bias_weight", _noting(comfy.ops.cast_bias_weight)))
        if hasattr(comfy.model_management, "in_training"):
            stack.enter_context(replaced(comfy.model_management, "in_training", True))
        yield


_core_is_told = Shared(_core_told)


def _noting(original: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[object, ...]]:
    """`cast_bias_weight`, whose results know where they came from."""

    def cast_bias_weight(s: Any, *args: object, **kwargs: object) -> tuple[object, ...]:
        result = original(s, *args, **kwargs)
        fed = args[0] if args else kwargs.get("input")
        if not (_watch.depth and torch.is_grad_enabled() and isinstance(fed, Tensor) and fed.requires_grad):
            return result
        _watch.handled.add(id(s))
        weight, bias, *stream = result
        lent = hasattr(s, "_v") or (bool(stream) and _streamed(stream[0]))
        more = {key: value for key, value in kwargs.items() if key != "input"}
        loan = Loan(s, fed, args[1:], more, lent)
        return (_marked(weight, s.weight, loan), _marked(bias, s.bias, loan), *stream)

    return cast_bias_weight


def _streamed(stream: object) -> bool:
    return (stream[0] if isinstance(stream, tuple) else stream) is not None


def _marked(tensor: Tensor | None, own: Tensor | None, loan: Loan) -> Tensor | None:
    """What the layer was given, with a note of the loan; its own parameter as it is, unless in 8 or 4 bits."""
    if tensor is None or (tensor is own and type(tensor) is nn.Parameter):
        return tensor
    alias = _plain(tensor).detach()
    setattr(alias, _LOAN, loan)
    return alias


def same_loan(tensor: Tensor, other: Tensor) -> Tensor:
    """`other`, which stands for `tensor`, marked as that is."""
    if hasattr(tensor, _LOAN):
        setattr(other, _LOAN, getattr(tensor, _LOAN))
    return other


def call(function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    """Call a PyTorch function on tensors of which one needs a gradient, without leaving lent memory to autograd."""
    if function is F.linear or function in _CONVOLUTIONS:
        bound = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
        if _is_product(function, bound):
            weight, bias = bound["weight"], bound.get("bias")
            settings = () if function is F.linear else tuple(bound.get(name, d) for name, d in _DEFAULTS.items())
            return _Product.apply(bound["input"], weight, bias, getattr(weight, _LOAN, None), function, settings)
    return function(*(_kept(arg) for arg in args), **{key: _kept(value) for key, value in kwargs.items()})


def _is_product(function: object, bound: dict[str, Any]) -> bool:
    """Whether this is a layer with fixed weights that need not be kept, or a convolution whose input need not be."""
    given, weight = bound["input"], bound["weight"]
    bias: Tensor | None = bound.get("bias")
    if not given.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad):
        return False
    if function is F.linear:
        return hasattr(weight, _LOAN)
    fixed = hasattr(weight, _LOAN) or type(weight) is nn.Parameter
    return fixed and given.ndim == weight.ndim and not isinstance(bound.get("padding", 0), str)


class _Product(torch.autograd.Function):
    """A linear layer or convolution with a fixed weight: the gradient needs the weight alone, and that only then."""

    @staticmethod
    def forward(
        ctx: Any,
        given: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        loan: Loan | None,
        function: Callable[..., Tensor],
        settings: tuple[object, ...],
    ) -> Tensor:
        ctx.shape, ctx.loan, ctx.function, ctx.settings = given.shape, loan, function, settings
        if loan is None:
            ctx.save_for_backward(weight)
        return function(given, weight, bias, *settings)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.loan is None:
            return _input_gradient(ctx, *ctx.saved_tensors, *gradients), None, None, None, None, None
        with ctx.loan.again() as weight:
            return _input_gradient(ctx, weight, *gradients), None, None, None, None, None


def _input_gradient(ctx: Any, weight: Tensor, gradient: Tensor) -> Tensor:
    if ctx.function is F.linear:
        return gradient @ weight
    return _CONVOLUTIONS[ctx.function](ctx.shape, weight, gradient, *ctx.settings)


def _kept(value: Any) -> Any:
    """An argument that autograd may keep: lent memory is copied."""
    if type(value) in (list, tuple):
        return type(value)(_kept(item) for item in value)
    if type(value) is not Tensor or value.requires_grad or not _is_lent(value):
        return value
    _watch.copied += 1
    return value.clone()


def _is_lent(tensor: Tensor) -> bool:
    """Whether this memory is not the tensor's own: noted as lent, not PyTorch's at all, or a stream's buffer."""
    loan = getattr(tensor, _LOAN, None)
    if loan is not None:
        return loan.lent
    storage = tensor.untyped_storage()
    buffers = newer(comfy.model_management, "STREAM_CAST_BUFFERS", {})
    return not storage.resizable() or any(
        storage.data_ptr() == b.untyped_storage().data_ptr() for b in buffers.values()
    )


def _needs_gradient(layer: nn.Module, args: tuple[object, ...]) -> bool:
    """Whether a layer is about to be run for its gradient, by ComfyUI's own code."""
    watched = _watch.depth and torch.is_grad_enabled() and "forward" not in layer.__dict__
    return bool(watched and args and isinstance(args[0], Tensor) and args[0].requires_grad)


def _begin(layer: nn.Module, args: tuple[object, ...]) -> None:
    if _needs_gradient(layer, args):
        _watch.handled.discard(id(layer))
        _watch.before[id(layer)] = _watch.copied


def _check(layer: nn.Module, args: tuple[object, ...], output: object) -> None:
    """After a layer has run.

    Raises:
        RuntimeError: its gradient is missing, or may read memory that is no longer the layer's.
    """
    if not _needs_gradient(layer, args) or not isinstance(output, Tensor):
        return
    copied = _watch.before.pop(id(layer), 0) != _watch.copied
    foreign = _foreign_function(output.grad_fn)
    if not output.requires_grad:
        _refuse(layer, "gives a result without a gradient")
    if foreign is not None:
        _refuse(layer, f"has a backward pass of its own, {foreign}")
    if hasattr(layer, "_v") and id(layer) not in _watch.handled and not copied:
        _refuse(layer, "takes its weight by another way than comfy.ops.cast_bias_weight")


def _foreign_function(node: object) -> str | None:
    """Name of the custom autograd function at the end of a layer, if it is neither ours nor PyTorch's."""
    for _ in range(3):
        kind = getattr(node, "_forward_cls", None) if isinstance(node, BackwardCFunction) else None
        if kind is not None:
            known = kind is _Product or kind.__module__.split(".")[0] == "torch"
            return None if known else f"{kind.__module__}.{kind.__qualname__}"
        following = getattr(node, "next_functions", ())
        node = following[0][0] if following else None
    return None


def _refuse(layer: nn.Module, why: str) -> None:
    function = f"{type(layer).__module__}.{type(layer).__qualname__}.forward"
    raise RuntimeError(
        f"MotionPrompt: {function} {why}, in a way that this version of MotionPrompt does not know, so the gradient "
        "could be wrong. Update MotionPrompt. Until then, start ComfyUI with --disable-dynamic-vram and load weights "
        "in 16 bits, or set strength to 0."
    )
