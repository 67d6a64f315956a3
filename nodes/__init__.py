"""Everything that knows ComfyUI: one node family a file, and `host`, the only place that touches its internals.

Every file of this folder is imported, and the nodes that it defines are the pack's: a new one is found by itself.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from comfy_api.latest import io

from .host.folders import register


def _nodes_of(module: ModuleType) -> list[type[io.ComfyNode]]:
    defined = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
    return [item for item in defined if issubclass(item, io.ComfyNode)]


NODES: list[type[io.ComfyNode]] = [
    node
    for found in iter_modules(__path__)
    if not found.ispkg
    for node in _nodes_of(import_module(f"{__name__}.{found.name}"))
]

register()
