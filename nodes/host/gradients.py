"""Lets gradients through models that ComfyUI loaded for inference, and puts everything back afterwards."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import lent
from .caches import without_caches
from .comfy_types import BaseModel, Options
from .models import every_module
from .shared import Shared
from .whole_graphs import gradients_kept_on

# What other nodes add to the prediction after the model: a loss on the prompt's own estimate does without. And copies
# of the model on other devices, which run in threads of their own, where nothing of `differentiable` holds.
_LEFT_OUT = (
    "multigpu_clones",
    "sampler_cfg_function",
    "sampler_post_cfg_function",
    "sampler_pre_cfg_function",
    "disable_cfg1_optimization",
)


@contextmanager
def differentiable(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within it autograd works, and works through `modules`, although ComfyUI runs nodes in inference mode.

    Weights that were made in inference mode, or ask for gradients of their own, are replaced by ordinary tensors on the
    same memory; AnimateDiff-Evolved's temporal attention, and what another pack put in the place of ComfyUI's, which
    may lack a backward pass, by PyTorch's; products of 8-bit numbers, which have none, by those of the weights that
    they stand for. Functions of other packs that switch gradients off leave them on. All is undone on leaving. Compiled
    models run as they were written.
    """
    undo: list[tuple[dict[str, object], str, object, object]] = []
    with torch.inference_mode(False), torch.enable_grad(), _uncompiled():
        found = every_module(modules)
        try:
            for module in found:
                _make_normal(module, undo)
                _forget_scale_masks(module)
            _use_plain_attention(undo)
            with lent.weights_returned(found), normal_tensors(), gradients_kept_on():
                yield
        finally:
            for table, name, original, replacement in reversed(undo):
                if table.get(name) is replacement:
                    table[name] = original
            for module in found:
                _forget_scale_masks(module)


def _make_normal(module: nn.Module, undo: list[tuple[dict[str, object], str, object, object]]) -> None:
    tables: list[Any] = [module._parameters, module._buffers]
    for table in tables:
        for name, tensor in table.items():
            if tensor is not None and (tensor.is_inference() or tensor.requires_grad):
                normal: Tensor = _same_memory(tensor)
                if isinstance(tensor, nn.Parameter):
                    normal = nn.Parameter(normal, requires_grad=False)
                    vars(normal).update(vars(tensor))  # ComfyUI notes there in which type it wants the weight
                undo.append((table, name, tensor, normal))
                table[name] = normal
    # AnimateDiff-Evolved's CrossAttentionMM keeps its attention function here and calls it without ComfyUI's override.
    attention = module.__dict__.get("actual_attention")
    if callable(attention):
        undo.append((module.__dict__, "actual_attention", attention, _plain_attention))
        module.__dict__["actual_attention"] = _plain_attention
    # ComfyUI's mixed-precision layers round their input to the weights' 8 or 4 bits as well: that cuts the gradient.
    full_precision = module.__dict__.get("_full_precision_mm")
    if full_precision is not None:
        undo.append((module.__dict__, "_full_precision_mm", full_precision, True))
        module.__dict__["_full_precision_mm"] = True


def _use_plain_attention(undo: list[tuple[dict[str, object], str, object, object]]) -> None:
    """In place of what another pack wrote into the modules of ComfyUI's models (KJNodes' Patch Sage Attention, which
    stays there): it need not ask for `optimized_attention_override`, as ComfyUI's own does."""
    for name, module in list(sys.modules.items()):
        for attribute in ("optimized_attention", "optimized_attention_masked") if name.startswith("comfy.ldm.") else ():
            function = module.__dict__.get(attribute)
            if function is not None and getattr(function, "__module__", "") != attention_pytorch.__module__:
                undo.append((module.__dict__, attribute, function, _plain_attention))
                module.__dict__[attribute] = _plain_attention


def _eager() -> AbstractContextManager[object]:
    """Compiled code would be compiled anew for gradients, checkpoints and each replaced weight, as often as not to fail
    there."""
    stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if stance is None or "torch._dynamo" not in sys.modules else stance("force_eager")


_uncompiled = Shared(_eager)


def _forget_scale_masks(module: nn.Module) -> None:
    """AnimateDiff-Evolved keeps its per-frame strengths expanded for the batch of the last evaluation, and after one
    of another size (the prompt without the negative prompt) renews the first of them only."""
    masks = module.__dict__.get("temp_scale_masks")
    if isinstance(masks, list):
        masks[:] = [None] * len(masks)


def _same_memory(tensor: Tensor) -> Tensor:
    """An ordinary tensor on an inference tensor's memory; a copy for tensor subclasses (quantised weights)."""
    if type(tensor) not in (Tensor, nn.Parameter):
        return tensor.clone()
    normal = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return normal.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


class normal_tensors(TorchFunctionMode):
    """Replaces inference tensors among the arguments of PyTorch calls (masks, strengths and the like that no module
    owns), and kernels without a backward pass by plain PyTorch."""

    def __enter__(self) -> TorchFunctionMode:
        self._watching = lent.watching()
        self._watching.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._watching.__exit__(None, None, None)

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        operator = func if isinstance(func, torch._ops.OpOverload | torch._ops.OpOverloadPacket) else None
        func = func if operator is None else _plain_kernel(operator)
        args, given = _normal(args), _normal(kwargs or {})
        if not torch.is_grad_enabled() or not any(_needs_gradient(value) for value in (*args, *given.values())):
            return func(*args, **given)
        result = lent.call(func, args, given)
        if operator is not None and isinstance(result, Tensor):
            _check_kernel(operator, result)
        return result


class attached(TorchFunctionMode):
    """Within it nothing is cut off from its graph: `detach` gives its tensor back.

    For networks that are given, such as ComfyUI's tiny video autoencoders (TAEHV), which detach their memory of earlier
    frames. What they compute stays the same, so that its slope is then the whole one.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if func in (Tensor.detach, torch.detach) and torch.is_grad_enabled():
            return args[0]
        return func(*args, **(kwargs or {}))


def _needs_gradient(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.requires_grad
    return isinstance(value, (list, tuple)) and any(_needs_gradient(item) for item in value)


def _check_kernel(operator: object, result: Tensor) -> None:
    """Raise RuntimeError for a kernel of ComfyUI or another pack that cut the gradient."""
    whole = result.grad_fn is not None and "NotImplemented" not in result.grad_fn.name()
    if not whole and result.is_floating_point() and str(operator).split(".")[0] not in ("aten", "prim", "prims"):
        raise RuntimeError(
            f"MotionPrompt: the kernel {operator} of this ComfyUI or of another node pack has no backward pass, and "
            "MotionPrompt knows no other code for it. Update MotionPrompt. Until then, switch that kernel off (flags "
            "such as --fast or --use-sage-attention), or set strength to 0."
        )


def _plain_kernel(operator: Callable[..., object]) -> Callable[..., object]:
    """For one of ComfyUI's own kernels (rotary embeddings and others of comfy_kitchen) the PyTorch version that comes
    with it; any other operator as it is."""
    namespace, name, *_ = str(operator).split(".")
    if namespace != "comfy_kitchen":
        return operator
    return getattr(importlib.import_module("comfy_kitchen.backends.eager"), name, operator)


def _normal(value: Any) -> Any:
    if isinstance(value, Tensor):
        return lent.same_loan(value, _same_memory(value)) if type(value) is Tensor and value.is_inference() else value
    if type(value) in (list, tuple):
        return type(value)(_normal(item) for item in value)
    if type(value) is dict:
        return {key: _normal(item) for key, item in value.items()}
    return value


def _plain_attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, **kwargs: object
) -> Tensor:
    return attention_pytorch(q, k, v, heads, mask, **kwargs)


def _attention_override(function: object, *args: object, **kwargs: object) -> Tensor:
    """ComfyUI's `optimized_attention_override`; flash, sage and chunked attention have no backward pass."""
    return attention_pytorch(*args, **kwargs)


def gradient_options(model_options: Options) -> Options:
    """Model options for an evaluation that is differentiated: attention with a backward pass, and the bare
    prediction."""
    options = {key: value for key, value in model_options.items() if key not in _LEFT_OUT}
    options["transformer_options"] = {
        **model_options.get("transformer_options", {}),
        "optimized_attention_override": _attention_override,
    }
    return without_caches(options)


def computes_in_half(model: BaseModel) -> bool:
    """Whether a ComfyUI model (BaseModel) computes in fp16, where gradients may overflow."""
    return (model.manual_cast_dtype or model.get_dtype()) == torch.float16


def out_of_memory(error: BaseException) -> bool:
    """Whether this says that the device, or the machine, has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def check_interrupt() -> None:
    """Stop if the user pressed Cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()
