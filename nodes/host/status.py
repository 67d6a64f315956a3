"""What a running node shows: a line of text under it, and points of its curve for web/motionprompt.js."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server import PromptServer

EVENT = "motionprompt.iteration"


class NodeView:
    """One node of the workflow that is open in the browser.

    Args:
        server: ComfyUI's PromptServer. node_id: the node's id in the prompt.
    """

    def __init__(self, server: Any, node_id: str):
        self.server = server
        self.node_id = node_id

    def text(self, line: str) -> None:
        """Show a line (or several) under the node."""
        if hasattr(self.server, "send_progress_text"):
            self.server.send_progress_text(line, self.node_id)

    def point(self, values: dict[str, Any]) -> None:
        """Add a point to the curve on the node; without the web extension nothing listens."""
        self.server.send_sync(EVENT, {"node": self.node_id, **values}, self.server.client_id)


def node_view(node_id: Any) -> NodeView | None:
    """The view of a node, or None where there is no node or no server to show it."""
    instance = getattr(PromptServer, "instance", None)
    return None if node_id is None or instance is None else NodeView(instance, str(node_id))


def status_line(node_id: Any) -> Callable[[str], None] | None:
    """For nodes that only show text: a function that does, or None."""
    view = node_view(node_id)
    return None if view is None else view.text
