"""A line of text under a running node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server import PromptServer


def status_line(node_id: Any) -> Callable[[str], None] | None:
    """A function that shows text on the node, or None where there is no node or no server to show it."""
    instance = getattr(PromptServer, "instance", None)
    if node_id is None or instance is None or not hasattr(instance, "send_progress_text"):
        return None
    return lambda text: instance.send_progress_text(text, str(node_id))
