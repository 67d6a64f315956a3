"""What other nodes remember from one evaluation to the next, kept out of the evaluations that the guidance adds.

A cache of steps (EasyCache, LazyCache, TeaCache and their kin) takes each evaluation of the model for the sampler's
next one. The guidance's own would be answered from the cache, without a gradient, or would be remembered in place of
the sampler's. So they run without such wrappers, and what a network notes on itself is put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from comfy.patcher_extension import WrapperExecutor
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from .comfy_types import Executor, Options
from .models import every_module
from .remembered import names_of, put_on

_TABLES = ("_parameters", "_buffers", "_modules")


def _remembers(name: object, function: object = None) -> bool:
    """Whether a wrapper is a cache, by its key, its name or the module that it comes from."""
    function = getattr(function, "func", function)
    words = [name, getattr(function, "__qualname__", ""), getattr(function, "__module__", ""), type(function).__name__]
    return any("cache" in str(word).lower() for word in words)


def without_caches(model_options: Options) -> Options:
    """Model options without the wrappers of caches; nothing is changed in place."""
    options = {key: value for key, value in model_options.items() if key != "model_function_wrapper"}
    function = model_options.get("model_function_wrapper")
    if function is not None and not _remembers("", function):
        options["model_function_wrapper"] = function
    transformer = dict(model_options.get("transformer_options", {}))
    transformer["wrappers"] = {
        kind: {
            key: kept
            for key, functions in by_key.items()
            if (kept := [each for each in functions if not _remembers(key, each)])
        }
        for kind, by_key in transformer.get("wrappers", {}).items()
    }
    options["transformer_options"] = transformer
    return options


def uncached(executor: Executor) -> Callable[..., Tensor]:
    """The rest of a chain of wrappers without the caches among them."""
    if not isinstance(executor, WrapperExecutor):
        return executor
    rest = [wrapper for wrapper in executor.wrappers[executor.idx + 1 :] if not _remembers("", wrapper)]
    return WrapperExecutor(executor.original, executor.class_obj, rest, 0).execute


class Layers:
    """How many of a network's layers the guidance's evaluations ran, the most so far."""

    def __init__(self) -> None:
        self.most = 0

    @contextmanager
    def run(self, network: nn.Module, roots: Iterable[object]) -> Iterator[None]:
        """
        Args:
            roots: what other nodes put around the model; one of them is named.

        Raises:
            ValueError: most layers did not run within it: something that is not known for a cache answered.
        """
        layers = {id(module) for module in every_module([network]) if module._parameters}
        ran: set[int] = set()
        hook = register_module_forward_pre_hook(lambda module, _: ran.add(id(module)))
        try:
            yield
        finally:
            hook.remove()
        self._compare(len(ran & layers), len(layers), network, roots)

    def _compare(self, ran: int, there: int, network: nn.Module, roots: Iterable[object]) -> None:
        self.most = max(self.most, ran)
        # Parts of a model may be meant to rest (skipped layers; a timed motion module, nearly half); a cache of steps
        # lets most rest. What has put its own `forward` on layers may be a cache of those alone.
        replaced = _forwards(network)
        if ran < (self.most if replaced else max(0.25 * there, 0.4 * self.most)):
            raise ValueError(
                f"MotionPrompt: {suspects(network, roots)} answered in the model's place, as a cache of steps does, so "
                "there is no gradient. Switch that node off for guided videos."
            )


def suspects(network: nn.Module, roots: Iterable[object]) -> str:
    """Which node is meant by what happened around the model: what replaced a `forward`, or whatever there is."""
    names = _forwards(network) or names_of([*roots, *put_on(network)]) or ["something around the model"]
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _forwards(network: nn.Module) -> list[str]:
    return names_of(vars(module).get("forward") for module in every_module([network]))


@contextmanager
def notes_kept(network: nn.Module) -> Iterator[None]:
    """Puts back what is noted on a network's modules beside their weights (TeaCache's residuals and counters)."""
    before = [(module, _notes(module)) for module in every_module([network])]
    try:
        yield
    finally:
        for module, kept in before:
            _restore(module.__dict__, kept)


def _notes(module: nn.Module) -> dict[str, tuple[object, Any]]:
    """Name -> the value and, as containers are changed in place, a copy of it."""
    return {
        key: (value, type(value)(value) if type(value) in (list, dict) else None)
        for key, value in module.__dict__.items()
        if key not in _TABLES
    }


def _restore(table: dict[str, object], kept: dict[str, tuple[object, Any]]) -> None:
    for key in [key for key in table if key not in _TABLES and key not in kept]:
        del table[key]
    for key, (value, contents) in kept.items():
        table[key] = value
        if isinstance(value, list) and contents is not None:
            value[:] = contents
        elif isinstance(value, dict) and contents is not None:
            value.clear()
            value.update(contents)
