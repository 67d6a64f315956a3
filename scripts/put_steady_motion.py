"""Puts the node Steady Motion into a workflow that somebody already has: between each model and what samples it.

    python -m scripts.put_steady_motion workflow.json changed.json

The file may have subgraphs, as ComfyUI's own templates do. What samples a model is known by its outputs (a GUIDER, or a
LATENT and no MODEL), so that new sampler nodes need no entry here. One node serves all that sample the same model.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .workflow import BYPASSED, MUTED, WorkflowError, load_workflow

NODE = "MotionPromptSteadyMotion"
# The ends of a subgraph, as its links have them.
INPUTS, OUTPUTS = -10, -20
Graph = dict[str, Any]


@dataclass
class Link:
    """A link, which workflows write as a list and subgraphs as a dictionary."""

    id: int
    origin: int
    origin_slot: int
    target: int
    target_slot: int
    type: str

    @classmethod
    def read(cls, link: Any) -> Link:
        if isinstance(link, Mapping):
            names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
            return cls(*(link[name] for name in names))
        return cls(*link[:6])

    def write(self, as_mapping: bool) -> Any:
        if not as_mapping:
            return [self.id, self.origin, self.origin_slot, self.target, self.target_slot, self.type]
        return {
            "id": self.id,
            "origin_id": self.origin,
            "origin_slot": self.origin_slot,
            "target_id": self.target,
            "target_slot": self.target_slot,
            "type": self.type,
        }


def graphs_of(workflow: Graph) -> list[Graph]:
    """The workflow itself and its subgraphs."""
    return [workflow, *((workflow.get("definitions") or {}).get("subgraphs") or [])]


def links_of(graph: Graph) -> list[Link]:
    return [Link.read(link) for link in graph.get("links") or []]


def put_steady_motion(workflow: Graph, strength: float = 1.0) -> tuple[Graph, int]:
    """A changed copy of a workflow in the interface's format, and how many nodes were put into it.

    Raises:
        WorkflowError: nothing in it samples a model, or a model has no VAE beside it.
    """
    workflow = copy.deepcopy(workflow)
    count = sum(_put_into(graph, workflow, strength) for graph in graphs_of(workflow))
    if not count:
        raise WorkflowError("nothing in this workflow samples a MODEL, so there is no place for Steady Motion")
    return workflow, count


def _put_into(graph: Graph, workflow: Graph, strength: float) -> int:
    nodes = {node["id"]: node for node in graph["nodes"]}
    links = links_of(graph)
    sources: dict[tuple[int, int], list[Link]] = {}
    for link in links:
        if link.type == "MODEL" and _samples(nodes.get(link.target)):
            sources.setdefault((link.origin, link.origin_slot), []).append(link)
    for (origin, slot), moved in sources.items():
        _between(graph, workflow, origin, slot, moved, _vae(links, nodes), strength)
    return len(sources)


def _samples(node: Mapping[str, Any] | None) -> bool:
    if node is None or node["type"] == NODE or node.get("mode", 0) in (MUTED, BYPASSED):
        return False
    made = {output["type"] for output in node.get("outputs") or []}
    return "GUIDER" in made or ("LATENT" in made and "MODEL" not in made)


def _vae(links: list[Link], nodes: Mapping[int, Mapping[str, Any]]) -> Link:
    """A link from the VAE of the pictures: the one that decodes them, else any that is not for sound."""

    def kind(link: Link) -> str:
        node = nodes.get(link.target)
        slots = (node or {}).get("inputs") or []
        name = slots[link.target_slot]["name"] if node is not None and link.target_slot < len(slots) else ""
        return f"{node['type'] if node else ''} {name}"

    found = [link for link in links if link.type == "VAE" and "audio" not in kind(link).lower()]
    decoding = [link for link in found if "VAEDecode" in kind(link)]
    if not found:
        raise WorkflowError("the model that is sampled has no VAE beside it; connect Steady Motion's vae by hand")
    return (decoding or found)[0]


def _between(
    graph: Graph, workflow: Graph, origin: int, slot: int, moved: list[Link], vae: Link, strength: float
) -> None:
    """A new node between a model's output and the links that leave it for what samples."""
    node_id = 1 + max(node["id"] for each in graphs_of(workflow) for node in each["nodes"])
    first = 1 + max((link.id for each in graphs_of(workflow) for link in links_of(each)), default=0)
    as_mapping = graph is not workflow
    to_model = Link(first, origin, slot, node_id, 0, "MODEL")
    to_vae = Link(first + 1, vae.origin, vae.origin_slot, node_id, 1, "VAE")
    ids = {link.id for link in moved}
    for place, link in enumerate(graph["links"]):
        read = Link.read(link)
        if read.id in ids:
            read.origin, read.origin_slot = node_id, 0
            graph["links"][place] = {**link, **read.write(True)} if as_mapping else read.write(False)
    graph["links"] += [link.write(as_mapping) for link in (to_model, to_vae)]
    _leave(graph, origin, slot, ids, to_model.id)
    _leave(graph, vae.origin, vae.origin_slot, set(), to_vae.id)
    target = next(node for node in graph["nodes"] if node["id"] == moved[0].target)
    graph["nodes"].append(_node(node_id, target, to_model.id, to_vae.id, sorted(ids), strength))
    state = graph.get("state") if as_mapping else graph
    for node_key, link_key in (("last_node_id", "last_link_id"), ("lastNodeId", "lastLinkId")):
        if state is not None and node_key in state:
            state[node_key], state[link_key] = max(state[node_key], node_id), max(state[link_key], to_vae.id)


def _leave(graph: Graph, origin: int, slot: int, gone: set[int], new: int) -> None:
    """An output's own list of links: those that are gone out of it, a new one into it."""
    if origin == INPUTS:
        end, key = graph["inputs"][slot], "linkIds"
    else:
        end, key = next(node for node in graph["nodes"] if node["id"] == origin)["outputs"][slot], "links"
    end[key] = [link for link in end.get(key) or [] if link not in gone] + [new]


def _node(
    node_id: int, target: Mapping[str, Any], model: int, vae: int, onward: list[int], strength: float
) -> dict[str, Any]:
    left, top = list(target["pos"].values())[:2] if isinstance(target["pos"], Mapping) else target["pos"][:2]
    return {
        "id": node_id,
        "type": NODE,
        "pos": [left - 320, top - 180],
        "size": [300, 110],
        "flags": {},
        "order": target.get("order", 0),
        "mode": 0,
        "inputs": [
            {"name": "model", "type": "MODEL", "link": model},
            {"name": "vae", "type": "VAE", "link": vae},
            {"name": "flow_model", "type": "MOTIONPROMPT_FLOW,OPTICAL_FLOW", "shape": 7, "link": None},
            {"name": "strength", "type": "FLOAT", "widget": {"name": "strength"}, "link": None},
        ],
        "outputs": [{"name": "model", "type": "MODEL", "links": onward}],
        "properties": {"cnr_id": "motionprompt", "ver": "0.1.0", "Node name for S&R": NODE},
        "widgets_values": [strength],
    }


def broken_links(workflow: Graph) -> list[str]:
    """What is wrong with the links of a workflow: an end that is missing, or does not know its link."""
    return [fault for graph in graphs_of(workflow) for fault in _broken(graph)]


def _broken(graph: Graph) -> Iterator[str]:
    nodes, seen = {node["id"]: node for node in graph["nodes"]}, set()
    for link in links_of(graph):
        if link.id in seen:
            yield f"link {link.id} is there twice"
        seen.add(link.id)
        ends = (
            (link.origin, link.origin_slot, "outputs", "links", INPUTS, "inputs"),
            (link.target, link.target_slot, "inputs", "link", OUTPUTS, "outputs"),
        )
        for node, slot, side, key, border, border_side in ends:
            slots = graph.get(border_side) if node == border else (nodes.get(node) or {}).get(side)
            if not slots or slot >= len(slots):
                yield f"link {link.id}: node {node} has no {side[:-1]} {slot}"
                continue
            known = slots[slot].get("linkIds" if node == border else key)
            if link.id != known and (not isinstance(known, list) or link.id not in known):
                yield f"link {link.id}: node {node} does not know it"


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise SystemExit(__doc__)
    source, target = map(Path, arguments)
    workflow, count = put_steady_motion(load_workflow(source))
    target.write_text(json.dumps(workflow, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    print(f"{target}: {count} Steady Motion node(s)")


if __name__ == "__main__":
    main(sys.argv[1:])
