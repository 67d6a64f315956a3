"""Builds a workflow file in the interface's format from Python, with the nodes laid out in columns.

    graph = Graph(server.object_info(), "my workflow")
    with graph.column("Model", 330):
        model = graph.add("CheckpointLoaderSimple", ckpt_name="some.safetensors")
    with graph.column("Look", 500):
        decoded = graph.add("VAEDecode", samples=latent[0], vae=model["VAE"])

Widgets that are not given have the schema's defaults. A node has room for everything that the interface draws on it:
interfaces make a node as high as it must be, but how high that is differs (Nodes 2.0 folds the advanced widgets away).
So a node is saved low, and stands where it has room to be high.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .workflow import default_value, widgets_of

CORE, PACK, ADE = "comfy-core", "motionprompt", "comfyui-animatediff-evolved"
TITLE, GAP, MARGIN, TOP = 30, 28, 20, 120
SLOT, WIDGET, TEXT, LINE = 20, 24, 110, 8
NODES_2 = 30  # in Nodes 2.0 the pack's name and "Show advanced inputs" stand under the widgets,
NODES_2_WIDGET = 30  # which are higher there
NOTE_LINE, NOTE_CHARACTER = 14, 5.0
COLOURS = {"Model": "#3f789e", "Prompt": "#a1309b", "Sampling": "#8A8", "Look": "#b58b2a", "Control": "#88A"}


@dataclass(frozen=True)
class Output:
    """One output of a node, to be given as an input of another."""

    node: dict[str, Any]
    slot: int


class Placed:
    """A node in the graph; `node[0]` and `node["VAE"]` are its outputs."""

    def __init__(self, node: dict[str, Any]):
        self.node = node

    def __getitem__(self, key: int | str) -> Output:
        names = [output["name"] for output in self.node["outputs"]]
        return Output(self.node, key if isinstance(key, int) else names.index(key))


class Graph:
    """A workflow that grows from left to right, a column after another.

    Args:
        object_info: a server's node schemas. name: makes the file's id. versions: registry id -> version of the pack.
    """

    def __init__(self, object_info: Mapping[str, Any], name: str, versions: Mapping[str, str]):
        self.object_info = object_info
        self.name = name
        self.versions = versions
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []
        self.groups: list[dict[str, Any]] = []
        self.app: dict[str, list[Any]] = {"inputs": [], "outputs": []}
        self.left, self.width, self.y = 40, 0, TOP

    @contextmanager
    def column(self, title: str, width: int, colour: str | None = None) -> Iterator[None]:
        """Nodes added inside stand below each other, in a group with this title."""
        self.width, self.y = width, TOP
        yield
        bounds = [self.left - MARGIN, TOP - TITLE - 40, width + 2 * MARGIN, self.y - GAP - TOP + 70 + MARGIN]
        self.groups.append(
            {
                "id": len(self.groups) + 1,
                "title": title,
                "bounding": bounds,
                "color": colour or COLOURS[title],
                "font_size": 24,
                "flags": {},
            }
        )
        self.left += width + 3 * MARGIN

    def add(
        self,
        kind: str,
        title: str | None = None,
        *,
        room: int = 0,
        below: int = 0,
        green: bool = False,
        models: list[dict[str, str]] | None = None,
        **inputs: Any,
    ) -> Placed:
        """Add a node below the last one.

        Args:
            room: the height that pictures or text on it need beyond its sockets and widgets.
            below: what it may grow by: outputs that newer cores add, or what it shows of its run.
            models: what the missing-model dialog offers: [{"name", "url", "directory"}].
            inputs: values of widgets, and `Output`s for links.

        Raises:
            ValueError: the node has no input of such a name.
        """
        schema = self.object_info[kind]
        widgets = widgets_of(schema)
        specs = {name: spec for group in ("required", "optional") for name, spec in _inputs(schema, group)}
        unknown = sorted(set(inputs) - set(specs))
        if unknown:
            raise ValueError(f"{kind} has no input {', '.join(unknown)}; it has {', '.join(sorted(specs))}")
        is_widget = {name for name, _ in widgets}
        given = {name: value for name, value in inputs.items() if not isinstance(value, Output)}
        values = ["fixed" if name is None else given.get(name, default_value(spec)) for name, spec in widgets]
        texts = sum(_options(spec).get("multiline", False) for name, spec in specs.items() if name in is_widget)
        low = max(len(set(specs) - is_widget), len(schema["output"]), 1) * SLOT + texts * TEXT + 2 * LINE + room
        high = low + len(widgets) * WIDGET
        place = low + len(widgets) * NODES_2_WIDGET + NODES_2 + below
        # A text or a picture gets what the widgets leave of the saved height.
        node = self._place(kind, title, high if texts or room else low, place)
        required = dict(_inputs(schema, "required"))
        slots = sorted(specs.items(), key=lambda item: item[0] in is_widget)  # as the interface has them: sockets first
        node["inputs"] = [self._input(name, spec, name in is_widget, name in required) for name, spec in slots]
        names = schema.get("output_name") or schema["output"]
        node["outputs"] = [
            {"name": name, "type": kind_, "links": []} for name, kind_ in zip(names, schema["output"], strict=True)
        ]
        pack = PACK if kind.startswith("MotionPrompt") else ADE if kind.startswith("ADE_") else CORE
        properties: dict[str, Any] = {"cnr_id": pack, "ver": self.versions[pack], "Node name for S&R": kind}
        node["properties"] = {**properties, "models": models} if models else properties
        node["widgets_values"] = values
        if green:
            node.update(color="#232", bgcolor="#353")
        for position, slot in enumerate(node["inputs"]):
            if isinstance(inputs.get(slot["name"]), Output):
                self._link(inputs[slot["name"]], node, position)
        return Placed(node)

    def note(self, title: str, text: str) -> None:
        """A MarkdownNote that is tall enough for its text."""
        characters = self.width / NOTE_CHARACTER
        lines = sum(max(1, math.ceil(len(line) / characters)) for line in text.split("\n"))
        node = self._place("MarkdownNote", title, height := 60 + lines * NOTE_LINE, height + NODES_2)
        node.update(inputs=[], outputs=[], properties={}, widgets_values=[text], color="#432", bgcolor="#653")

    def in_app(self, placed: Placed, *widgets: str) -> None:
        """Show these widgets of a node in the interface's App mode, or, without any, what an output node makes.

        Raises:
            ValueError: the node has no such widget.
        """
        number, inputs = placed.node["id"], placed.node["inputs"]
        known = {slot["name"] for slot in inputs if "widget" in slot}
        if unknown := sorted(set(widgets) - known):
            raise ValueError(f"{placed.node['type']} has no widget {', '.join(unknown)}; it has {', '.join(known)}")
        self.app["inputs"] += [[number, name] for name in widgets]
        self.app["outputs"] += [] if widgets else [number]

    def to_dict(self) -> dict[str, Any]:
        """The workflow, to be written as JSON."""
        app = {"linearData": self.app} if self.app["outputs"] else {}
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"motionprompt/{self.name}")),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": {"ds": {"scale": 0.8, "offset": [40, 80]}, **app},
            "version": 0.4,
        }

    def _place(self, kind: str, title: str | None, height: int, place: int) -> dict[str, Any]:
        number = len(self.nodes) + 1
        node: dict[str, Any] = {
            "id": number,
            "type": kind,
            "pos": [self.left, self.y],
            "size": [self.width, height],
            "flags": {},
            "order": number - 1,
            "mode": 0,
        }
        if title is not None:
            node["title"] = title
        self.nodes.append(node)
        self.y += place + TITLE + GAP
        return node

    def _input(self, name: str, spec: list[Any], is_widget: bool, required: bool) -> dict[str, Any]:
        slot = {"name": name, "type": "COMBO" if isinstance(spec[0], list) else spec[0], "link": None}
        if not required:
            slot["shape"] = 7
        if is_widget:
            slot["widget"] = {"name": name}
        return slot

    def _link(self, source: Output, target: dict[str, Any], position: int) -> None:
        output, slot = source.node["outputs"][source.slot], target["inputs"][position]
        kind = output["type"] if slot["type"] == "*" else slot["type"]
        link = [len(self.links) + 1, source.node["id"], source.slot, target["id"], position, kind]
        self.links.append(link)
        output["links"].append(link[0])
        slot["link"] = link[0]


def _inputs(schema: Mapping[str, Any], group: str) -> list[tuple[str, Any]]:
    specs = schema["input"].get(group) or {}
    return [(name, specs[name]) for name in (schema.get("input_order") or {}).get(group) or specs]


def _options(spec: list[Any]) -> Mapping[str, Any]:
    return spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
