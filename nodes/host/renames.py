"""Nodes that were renamed: ComfyUI puts the new one in the place of the old, in workflows and in prompts.

ComfyUI has this since 2026; an older one shows the old node as missing. Nothing was renamed yet: a released node's id
stays what it is, and this is for the day when one cannot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import comfy_api.latest
from comfy_api.latest import io

from .core_functions import newer


@dataclass(frozen=True)
class Renamed:
    """One node.

    Attributes:
        old, new: ids. widgets: the old node's, in the order in which workflow files keep their values.
        inputs: old name -> new, of every socket and widget. outputs: the new positions of the old outputs.
    """

    old: str
    new: str
    widgets: tuple[str, ...]
    inputs: dict[str, str]
    outputs: tuple[int, ...]


RENAMED: tuple[Renamed, ...] = ()


async def register_renames(renamed: Iterable[Renamed] = RENAMED) -> None:
    """Tell ComfyUI, if it is new enough to be told."""
    replace: Any = newer(io, "NodeReplace", None)
    if replace is None:
        return
    api: Any = comfy_api.latest.ComfyAPI()
    for node in renamed:
        await api.node_replacement.register(
            replace(
                new_node_id=node.new,
                old_node_id=node.old,
                old_widget_ids=list(node.widgets),
                input_mapping=[{"new_id": new, "old_id": old} for old, new in node.inputs.items()],
                output_mapping=[{"new_idx": new, "old_idx": old} for old, new in enumerate(node.outputs)],
            )
        )
