"""What a node shows of its run, lines of text and curves; web/node_view.js draws them on the node.

Not ComfyUI's own progress text: some of its interfaces take that for HTML, and it may hold the names of files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence

from comfy_api.latest import io
from comfy_execution.utils import get_executing_context
from server import PromptServer
from torch import Tensor

EVENT = "motionprompt.view"
DIGITS = 6


class NodeView:
    """One node of the workflow that is open in the browser.

    Args:
        server: ComfyUI's PromptServer. node_id: the node that stands in the graph, "7", or "1:2:7" inside subgraphs.
    """

    def __init__(self, server: PromptServer, node_id: str):
        self.server = server
        self.node_id = node_id

    def show(self, text: str, curves: Mapping[str, Sequence[float | None]] | None = None) -> None:
        """Put this on the node in place of what it showed: a browser that missed the last message has everything.

        Args:
            text: one or several lines. curves: by name, all of one length; what is not finite leaves a gap.
        """
        points = {name: [_readable(value) for value in values] for name, values in (curves or {}).items()}
        view = {"node": self.node_id, "workflow": self._workflow(), "lines": text.split("\n"), "curves": points}
        self.server.send_sync(EVENT, view, self.server.client_id)

    def _workflow(self) -> str | None:
        """Id of the workflow that is running: the one in the browser may be another by now."""
        running, _ = self.server.prompt_queue.get_current_queue_volatile()
        extra = running[0][3] if running else {}
        return ((extra.get("extra_pnginfo") or {}).get("workflow") or {}).get("id")


def node_view(node: type[io.ComfyNode]) -> NodeView | None:
    """The view of the node that is being executed, or None where there is no node in a graph or no server to show it.

    Args:
        node: the class that `execute` is called on; it must ask for its hidden unique_id.
    """
    server, node_id = getattr(PromptServer, "instance", None), getattr(node.hidden, "unique_id", None)
    if node_id is None or server is None:
        return None
    # In a loop the executed node is a copy with an id of its own; the server knows for which one it stands.
    return NodeView(server, str(getattr(server, "last_node_id", None) or node_id))


def status_line(node: type[io.ComfyNode]) -> Callable[[str], None] | None:
    """For nodes that only show text: a function that does, or None."""
    view = node_view(node)
    return None if view is None else view.show


def _readable(value: float | None) -> float | None:
    """JSON in a browser knows no NaN."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def video_identity(samples: Tensor) -> str:
    """Tells a sampler's latents from others', so that a report can be found by what it reports on.

    Of latents that hold sound as well the picture counts: LTX-2's workflows part them after the sampler.
    """
    picture = samples.unbind()[0] if getattr(samples, "is_nested", False) else samples
    return hashlib.sha256(picture.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def queued_run() -> str | None:
    """What ComfyUI calls the queued prompt that is being executed; None outside of its executor."""
    context = get_executing_context()
    return None if context is None else context.prompt_id
