"""LoRA hooks that differ between prompts: inside of one evaluation ComfyUI writes other weights into the model from one
prompt to the next, and the backward pass has to see those that each prompt was evaluated with."""

from __future__ import annotations

from collections.abc import Callable

import comfy.utils
from comfy.hooks import EnumHookType
from torch import Tensor

from .comfy_types import BaseModel, CondLists


def weights_change(conds: CondLists) -> bool:
    """Whether the weights change from one positive prompt to the next."""
    sets: list[list[object]] = []
    for cond in conds.get("positive", ()):
        hooks = getattr(cond.get("hooks"), "hooks", ())
        sets.append([hook for hook in hooks if getattr(hook, "hook_type", None) == EnumHookType.Weight])
    return any(found != sets[0] for found in sets)


class HookedWeights:
    """The weights of a model that hooks change while it is evaluated.

    Args:
        model: the BaseModel, while it samples.
    """

    def __init__(self, model: BaseModel):
        self._patcher = model.current_patcher

    @property
    def hooks(self) -> object:
        """Those whose weights are in the model now."""
        return self._patcher.current_hooks

    def put_back(self, hooks: object) -> None:
        """Have the weights of these hooks in the model."""
        self._patcher.apply_hooks(hooks)

    def among(self) -> Callable[[Tensor], bool]:
        """Whether a tensor is on the memory of a weight that hooks change."""
        keys = {key for patches in self._patcher.hook_patches.values() for key in patches}
        weights = [comfy.utils.get_attr(self._patcher.model, key) for key in keys]
        memory = {weight.untyped_storage().data_ptr() for weight in weights}
        return lambda tensor: tensor.untyped_storage().data_ptr() in memory
