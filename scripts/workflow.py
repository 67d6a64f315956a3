"""Turn a workflow file (the interface's format, what users share) into a prompt (what the server runs).

Does what the frontend's "Export (API)" does for graphs of ordinary nodes: links, widgets, the value that the seed's
"control after generate" keeps, converted widgets, muted and bypassed nodes, Reroute, Primitive and notes. Subgraphs are
refused with a message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Prompt = dict[str, dict[str, Any]]
Node = dict[str, Any]

MUTED, BYPASSED = 2, 4
NOTES = {"Note", "MarkdownNote"}
VIRTUAL = NOTES | {"Reroute", "PrimitiveNode"}
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
UPLOADS = ("image_upload", "video_upload", "audio_upload")  # input options that make the frontend add a button


class WorkflowError(ValueError):
    """The workflow cannot be converted; the message names the node."""


def load_workflow(path: Path | str) -> dict[str, Any]:
    """Read a workflow file in the interface's format.

    Raises:
        WorkflowError: it is an API-format prompt or not a workflow at all.
    """
    workflow = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(workflow, dict) or "nodes" not in workflow or "links" not in workflow:
        raise WorkflowError(f"{path} is not a workflow in the interface's format: it has no 'nodes' and 'links'")
    return workflow


def ui_to_api(workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> Prompt:
    """Convert a workflow to a prompt.

    Args:
        workflow: the parsed workflow file.
        object_info: the server's node schemas (`ComfyServer.object_info()`).

    Returns:
        {node id as str: {"class_type", "inputs", "_meta": {"title"}}}.

    Raises:
        WorkflowError: a node type is unknown to the server, or the graph has subgraphs.
    """
    if (workflow.get("definitions") or {}).get("subgraphs"):
        raise WorkflowError("the workflow has subgraphs; unpack them in the interface and save it again")
    graph = _Graph(workflow)
    prompt: Prompt = {}
    for node in sorted(graph.nodes.values(), key=lambda item: item.get("order", 0)):
        if node["type"] in VIRTUAL or node.get("mode", 0) in (MUTED, BYPASSED):
            continue
        if node["type"] not in object_info:
            raise WorkflowError(f"node {node['id']} has type {node['type']!r}, which this ComfyUI does not have")
        schema = object_info[node["type"]]
        inputs = _widget_values(node, schema)
        for slot in node.get("inputs") or []:
            if slot.get("link") is not None:
                inputs.pop(slot["name"], None)
                source = graph.resolve(slot["link"])
                if source is not None:
                    inputs[slot["name"]] = source
        title = node.get("title") or schema.get("display_name") or node["type"]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs, "_meta": {"title": title}}
    return prompt


def find_nodes(prompt: Prompt, class_type: str, title: str | None = None) -> list[str]:
    """Ids of the nodes of one class (and title, if given), in the prompt's order."""
    return [
        node_id
        for node_id, node in prompt.items()
        if node["class_type"] == class_type and (title is None or node["_meta"]["title"] == title)
    ]


def set_inputs(prompt: Prompt, class_type: str, **values: Any) -> list[str]:
    """Change input values of every node of a class in place; returns their ids.

    Raises:
        WorkflowError: there is no such node, or it has no such input (a change that changes nothing is a mistake).
    """
    found = find_nodes(prompt, class_type)
    if not found:
        raise WorkflowError(f"the prompt has no {class_type} node")
    for node_id in found:
        inputs = prompt[node_id]["inputs"]
        unknown = sorted(set(values) - set(inputs))
        if unknown:
            raise WorkflowError(f"{class_type} has no input {', '.join(unknown)}; it has {', '.join(sorted(inputs))}")
        inputs.update(values)
    return found


def _widget_values(node: Node, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Widget name -> value. Saved values are positional, in the order of the schema's widgets."""
    saved = node.get("widgets_values") or []
    values: dict[str, Any] = {}
    for position, (name, spec) in enumerate(widgets_of(schema)):
        if name is None:
            continue
        if isinstance(saved, Mapping):  # some packs save by name
            value = saved.get(name, default_value(spec))
        else:
            value = saved[position] if position < len(saved) else default_value(spec)
        values[name] = {"__value__": value} if isinstance(value, list) else value
    return values


def widgets_of(schema: Mapping[str, Any]) -> list[tuple[str | None, list[Any]]]:
    """(name, spec) of a node's widgets in the frontend's order; (None, []) for those that it adds and does not send."""
    widgets: list[tuple[str | None, list[Any]]] = []
    for group in ("required", "optional"):
        specs = schema["input"].get(group) or {}
        uploads = 0
        for name in (schema.get("input_order") or {}).get(group) or specs:
            spec = specs[name]
            options = _options(spec)
            is_widget = isinstance(spec[0], list) or spec[0] in WIDGET_TYPES
            if not is_widget or options.get("forceInput") or options.get("rawLink"):
                continue
            widgets.append((name, spec))
            if options.get("control_after_generate", spec[0] == "INT" and name in ("seed", "noise_seed")):
                widgets.append((None, []))
            uploads += any(options.get(key) for key in UPLOADS)
        widgets += [(None, [])] * uploads  # the buttons come after the group's own widgets
    return widgets


def _options(spec: list[Any]) -> Mapping[str, Any]:
    return spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}


def default_value(spec: list[Any]) -> Any:
    """The value that a fresh widget of this schema entry has; None for inputs that are not widgets."""
    options = _options(spec)
    if "default" in options:
        return options["default"]
    choices = spec[0] if isinstance(spec[0], list) else options.get("options")
    if choices:
        return choices[0]
    empty = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
    return empty.get(spec[0]) if isinstance(spec[0], str) else None


class _Graph:
    """Links of a workflow, followed through nodes that do not run."""

    def __init__(self, workflow: Mapping[str, Any]):
        self.nodes: dict[Any, Node] = {node["id"]: node for node in workflow["nodes"]}
        self.sources: dict[Any, tuple[Any, int]] = {}
        for link in workflow["links"]:
            if isinstance(link, Mapping):
                self.sources[link["id"]] = (link["origin_id"], link["origin_slot"])
            else:
                self.sources[link[0]] = (link[1], link[2])

    def resolve(self, link_id: Any) -> Any:
        """[node id, slot] that really feeds this link, a Primitive's value, or None if nothing does."""
        if link_id is None or link_id not in self.sources:
            return None
        node_id, slot = self.sources[link_id]
        node = self.nodes.get(node_id)
        if node is None or node.get("mode", 0) == MUTED:
            return None
        if node["type"] == "PrimitiveNode":
            return (node.get("widgets_values") or [None])[0]
        if node["type"] == "Reroute":
            return self.resolve(node["inputs"][0].get("link"))
        if node.get("mode", 0) == BYPASSED:
            return self._through(node, slot)
        return [str(node_id), slot]

    def _through(self, node: Node, slot: int) -> Any:
        """A bypassed node hands on the input of the output's type: the same slot first, then the first that fits."""
        wanted = node["outputs"][slot]["type"]
        inputs = node.get("inputs") or []
        for candidate in [*inputs[slot : slot + 1], *inputs]:
            if candidate["type"] == wanted:
                return self.resolve(candidate.get("link"))
        return None
