"""Builds a subgraph blueprint from Python: nodes that stand for one node, which the interface offers under Blueprints.

    blueprint = Blueprint(server.object_info(), "MotionPrompt guided sampler", versions)
    model = blueprint.input("model", "MODEL")
    with blueprint.column("Sampling", 330):
        sampler = blueprint.add("KSampler", model=model, seed=blueprint.input("seed", "INT"), ...)
    blueprint.output("latent", sampler[0])

An input that feeds a widget shows that widget on the node from outside. ComfyUI 0.3.75 and later read the folder
`subgraphs` of a pack (https://docs.comfy.org/custom-nodes/subgraph_blueprints).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from .graph import Graph, Output

INLET, OUTLET = -10, -20  # what the interface calls a subgraph's two ends
SIDE = 160  # width of an end
LOW = 100


class Blueprint(Graph):
    """A graph with ends, saved as the definition of a subgraph and one node that stands for it.

    Args:
        object_info, versions: see `Graph`. name: what the interface shows. description: what it is for.
        aliases: other words that it is found by.
    """

    def __init__(
        self,
        object_info: Mapping[str, Any],
        name: str,
        versions: Mapping[str, str],
        description: str = "",
        aliases: list[str] | None = None,
    ):
        super().__init__(object_info, name, versions)
        self.description = description
        self.aliases = aliases or []
        self.inlet: dict[str, Any] = {"id": INLET, "outputs": []}
        self.outlet: dict[str, Any] = {"id": OUTLET, "inputs": []}

    def input(self, name: str, kind: str) -> Output:
        """A socket, or a widget where it feeds one, of the node that stands for all; may feed several nodes."""
        self.inlet["outputs"].append({"name": name, "type": kind, "links": []})
        return Output(self.inlet, len(self.inlet["outputs"]) - 1)

    def output(self, name: str, source: Output) -> None:
        self.outlet["inputs"].append({"name": name, "type": source.node["outputs"][source.slot]["type"], "link": None})
        self._link(source, self.outlet, len(self.outlet["inputs"]) - 1)

    def to_dict(self) -> dict[str, Any]:
        """The file of the folder `subgraphs`."""
        inputs = [self._end(slot, slot["links"]) for slot in self.inlet["outputs"]]
        outputs = [self._end(slot, [slot["link"]]) for slot in self.outlet["inputs"]]
        subgraph = {
            "id": self._uuid("subgraph"),
            "version": 1,
            "state": {
                "lastGroupId": len(self.groups),
                "lastNodeId": len(self.nodes),
                "lastLinkId": len(self.links),
                "lastRerouteId": 0,
            },
            "revision": 0,
            "config": {},
            "name": self.name,
            "inputNode": {"id": INLET, "bounding": [-2 * SIDE, LOW, SIDE, 20 * len(inputs) + 40]},
            "outputNode": {"id": OUTLET, "bounding": [self.left + SIDE, LOW, SIDE, 20 * len(outputs) + 40]},
            "inputs": inputs,
            "outputs": outputs,
            "widgets": [],
            "nodes": self.nodes,
            "groups": self.groups,
            "links": [_link_object(link) for link in self.links],
            "extra": {"BlueprintDescription": self.description, "BlueprintSearchAliases": self.aliases},
            "category": "MotionPrompt",
            "description": self.description,
        }
        return {
            "id": self._uuid("file"),
            "revision": 0,
            "last_node_id": len(self.nodes) + 1,
            "last_link_id": 0,
            "nodes": [self._stand_in(subgraph["id"], inputs, outputs)],
            "links": [],
            "groups": [],
            "definitions": {"subgraphs": [subgraph]},
            "config": {},
            "extra": {"BlueprintDescription": self.description, "BlueprintSearchAliases": self.aliases},
            "version": 0.4,
        }

    def _stand_in(self, kind: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
        widgets = self._widgets()
        slots = []
        for slot in inputs:
            widget = {"widget": {"name": slot["name"]}} if slot["name"] in widgets else {}
            slots.append({"name": slot["name"], "type": slot["type"], "link": None, **widget})
        return {
            "id": len(self.nodes) + 1,  # unlike all inside
            "type": kind,
            "pos": [0, 0],
            "size": [340, 26 * len(inputs) + 60],
            "flags": {},
            "order": 0,
            "mode": 0,
            "title": self.name,
            "inputs": slots,
            "outputs": [{"name": slot["name"], "type": slot["type"], "links": []} for slot in outputs],
            "properties": {"cnr_id": "motionprompt", "ver": self.versions["motionprompt"]},
            "widgets_values": [],
        }

    def _widgets(self) -> set[str]:
        """Names of the inputs that feed widgets."""
        fed = {slot["link"] for node in self.nodes for slot in node["inputs"] if slot.get("widget")}
        return {slot["name"] for slot in self.inlet["outputs"] if fed.intersection(slot["links"])}

    def _end(self, slot: Mapping[str, Any], links: list[int]) -> dict[str, Any]:
        return {"id": self._uuid(slot["name"]), "name": slot["name"], "type": slot["type"], "linkIds": links}

    def _uuid(self, part: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"motionprompt/subgraphs/{self.name}/{part}"))


def _link_object(link: list[Any]) -> dict[str, Any]:
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return dict(zip(names, link, strict=True))
