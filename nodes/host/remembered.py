"""What functions that other nodes put around a model remember from one evaluation to the next: put back afterwards.

A cache that is not known for one cannot be left out of the guidance's evaluations, but can be made to forget them.
"""

from __future__ import annotations

import dis
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any, NamedTuple, TypeGuard

from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from .models import every_module

_OURS = __name__.rsplit(".", 3)[0]
_CONTAINERS = (dict, list, set, deque)
_LEFT_ALONE = {*sys.stdlib_module_names, "torch", "comfy", "numpy"}
_CALLED = ("wrappers", "callbacks", "patches", "patches_replace")
_MOST = 20_000  # objects that are followed
_LARGEST = 2**24  # elements of tensors that are copied
_NOTHING = object()


@contextmanager
def remembered(roots: Sequence[object], network: nn.Module) -> Iterator[None]:
    """Within it nothing that remembers tensors from one call to the next is changed for good.

    Whatever a function or an object of another pack can reach is put back afterwards, if tensors or noise levels were
    put in the place of others there: what only counts or writes a list of what it saw goes on. Tensors that the sampler
    left there are copies within it.

    Args:
        roots: functions and objects, or containers of them. network: whose modules may hold others, too.
    """
    notes = [value for root in roots for value in _notes(root)]
    found = {id(root): root for root in [*notes, *_flat(roots), *put_on(network)]}
    kept, copies = [_Kept(root) for root in found.values()], {}
    try:
        for each in kept:
            each.lend(copies)
        yield
    finally:
        for each in kept:
            if each.remembers():
                each.restore()


def put_on(network: nn.Module) -> Iterator[object]:
    """What others put on modules: another `forward`, hooks, objects that hold a cache's state."""
    for module in every_module([network]):
        for value in vars(module).values():
            if isinstance(value, dict) and value and not isinstance(next(iter(value.values())), nn.Module):
                yield from value.values()
            elif isinstance(value, (FunctionType, MethodType, partial)) or _is_of_a_pack(value):
                yield value


def _notes(root: object) -> list[object]:
    """What nodes keep among ComfyUI's transformer options, beside the functions that are to be called."""
    options = root if isinstance(root, dict) else {}
    return [value for name, value in options.items() if isinstance(value, _CONTAINERS) and name not in _CALLED]


def names_of(values: Iterable[object]) -> list[str]:
    """What functions of other packs, and objects of their classes, are called; also those within containers."""
    found: dict[str, None] = {}
    for value in _flat(values):
        value = getattr(value, "func", value)
        function = getattr(value, "__func__", value)
        if isinstance(function, FunctionType) and not is_left_alone(function.__module__ or ""):
            found[function.__qualname__.split(".")[0]] = None
        elif _is_of_a_pack(value):
            found[type(value).__qualname__] = None
    return list(found)


def _flat(values: Iterable[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, (dict, list, tuple)):
            yield from _flat(value.values() if isinstance(value, dict) else value)
        else:
            yield value


def _is_of_a_pack(value: object) -> bool:
    return _is_class_of_a_pack(type(value))


@cache
def _is_class_of_a_pack(kind: type) -> bool:
    """Another pack's own class, which derives from none of ComfyUI's or PyTorch's."""
    own = kind.__mro__[:-1]
    return not issubclass(kind, type) and "__dict__" in dir(kind) and not any(is_left_alone(k.__module__) for k in own)


def is_left_alone(module: str) -> bool:
    """Whether a module is Python's, PyTorch's, ComfyUI's or ours, by its name."""
    return module.split(".")[0] in _LEFT_ALONE - {"__main__"} or module.startswith(_OURS)


class _Place(NamedTuple):
    """Where values are kept: what was there, what is, and how others are put there. A list that grows is a record."""

    before: Mapping[object, object]
    now: Callable[[], Mapping[object, object]]
    put: Callable[[Mapping[Any, Any]], object]
    grows: bool = False

    def took_tensors(self) -> bool:
        """Whether other values are there now, and those or what was before are tensors."""
        now = self.now()
        names = self.before if self.grows else {**self.before, **now}
        pairs = [(self.before.get(name), now.get(name)) for name in names]
        return any(old is not new and (_is_of_a_step(old) or _is_of_a_step(new)) for old, new in pairs)

    def lend(self, copies: dict[int, Tensor]) -> None:
        """Put copies in the place of tensors: what is written into them is gone afterwards, and those that were made in
        inference mode could keep nothing of a graph. `copies` are those that there are, by what they are of."""
        tensors = [value for value in self.before.values() if _is_buffer(value)]
        for tensor in tensors:
            if id(tensor) not in copies:
                copies[id(tensor)] = tensor.detach().clone()
        if tensors:
            self.put({name: copies.get(id(value), value) for name, value in self.before.items()})


class _Kept:
    """All that a function or an object can reach, as it was."""

    def __init__(self, root: object):
        self._places: list[_Place] = []
        seen: dict[int, object] = {}
        waiting = [root]
        while waiting and len(seen) < _MOST:
            value = waiting.pop()
            if id(value) not in seen:
                seen[id(value)] = value
                waiting += self._within(value)

    def remembers(self) -> bool:
        return any(place.took_tensors() for place in self._places)

    def lend(self, copies: dict[int, Tensor]) -> None:
        for place in self._places:
            place.lend(copies)

    def restore(self) -> None:
        for place in self._places:
            place.put(place.before)

    def _within(self, value: Any) -> Iterable[object]:
        if isinstance(value, _CONTAINERS):
            content, grows = _slots(value.copy()), not isinstance(value, dict)
            self._places.append(_Place(content, partial(_slots, value), partial(_refill, value), grows))
            return list(content.values())
        if isinstance(value, FunctionType):
            return [] if is_left_alone(value.__module__ or "") else self._of_function(value)
        if isinstance(value, MethodType):
            return [value.__self__, value.__func__]
        if isinstance(value, partial):
            return [value.func, *value.args, value.keywords]
        if isinstance(value, tuple):
            return value
        if isinstance(value, ModelPatcher):  # AnimateDiff-Evolved: at what noise level which module rests
            return [value.attachments, value.additional_models]
        return [vars(value)] if _is_of_a_pack(value) else []

    def _of_function(self, function: FunctionType) -> list[object]:
        found: list[object] = [vars(function), *(function.__defaults__ or ()), function.__kwdefaults__ or {}]
        for cell in function.__closure__ or ():
            content = _content(cell)
            self._places.append(_Place({"": content}, partial(_cell_slot, cell), partial(_fill_cell, cell)))
            found.append(content)
        written, read = _globals_of(function.__code__)
        module = function.__globals__
        for name in written & set(module):
            self._places.append(_Place(_slot(module, name), partial(_slot, module, name), module.update))
        values = (module.get(name) for name in written | read)
        return found + [value for value in values if isinstance(value, _CONTAINERS) or _is_of_a_pack(value)]


def _is_of_a_step(value: object) -> bool:
    """Tensors, or a number such as a noise level; what is counted are whole numbers."""
    parts = value if isinstance(value, (list, tuple)) else (value,)
    return any(isinstance(part, (Tensor, float)) for part in parts)


def _is_buffer(value: object) -> TypeGuard[Tensor]:
    return type(value) is Tensor and value.numel() <= _LARGEST


def _slots(container: Any) -> Mapping[object, object]:
    return container if isinstance(container, dict) else dict(enumerate(container))


def _slot(container: Mapping[str, object], name: str) -> Mapping[object, object]:
    return {name: container.get(name)}


def _cell_slot(cell: CellType) -> Mapping[object, object]:
    return {"": _content(cell)}


def _globals_of(code: CodeType) -> tuple[set[str], set[str]]:
    """Names of the module that a function writes, and that it reads."""
    names: dict[str, set[str]] = {"STORE_GLOBAL": set(), "LOAD_GLOBAL": set()}
    for instruction in dis.get_instructions(code):
        if instruction.opname in names:
            names[instruction.opname].add(instruction.argval)
    return names["STORE_GLOBAL"], names["LOAD_GLOBAL"]


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # nothing is in it yet
        return _NOTHING


def _fill_cell(cell: CellType, values: Mapping[object, object]) -> None:
    content = values[""]
    if content is _NOTHING:
        del cell.cell_contents
    elif _content(cell) is not content:
        cell.cell_contents = content


def _refill(container: Any, values: Mapping[object, object]) -> None:
    container.clear()
    if isinstance(container, (list, deque)):
        container.extend(values.values())
    else:
        container.update(values if isinstance(container, dict) else values.values())
