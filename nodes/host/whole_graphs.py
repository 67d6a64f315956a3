"""Functions of other packs that switch gradients off (`torch.no_grad`, `torch.inference_mode`), as sampling needs none.

Inside a model that would cut a part out of the gradient, or all of it, unnoticed: there gradients stay on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from .remembered import is_left_alone
from .shared import Shared, replaced


@contextmanager
def _kept_on() -> Iterator[None]:
    without_gradients, for_inference = torch.no_grad.__enter__, torch.inference_mode.__enter__

    def enter_without_gradients(context: torch.no_grad) -> None:
        context.prev = torch.is_grad_enabled()
        if not _asked_by_a_pack(sys._getframe(1)):
            without_gradients(context)

    def enter_for_inference(context: torch.inference_mode) -> None:
        asked = context.mode
        context.mode = asked and not (torch.is_grad_enabled() and _asked_by_a_pack(sys._getframe(1)))
        for_inference(context)
        context.mode = asked

    with (
        replaced(torch.no_grad, "__enter__", enter_without_gradients),
        replaced(torch.inference_mode, "__enter__", enter_for_inference),
    ):
        yield


gradients_kept_on = Shared(_kept_on)


def _asked_by_a_pack(frame: FrameType) -> bool:
    """Whether the code that switches gradients off, as a block or around a whole function, is another pack's."""
    decorated = frame.f_locals.get("func") if frame.f_code.co_name == "decorate_context" else None
    names = frame.f_globals if decorated is None else getattr(decorated, "__globals__", {})
    return not is_left_alone(str(names.get("__name__", "torch")))
