"""The subgraph blueprints: in step with the nodes, offered by ComfyUI, and they run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.blueprint import INLET, OUTLET
from scripts.make_blueprints import SUBGRAPHS, WRITERS, build
from scripts.workflow import set_inputs, ui_to_api

FILES = sorted(SUBGRAPHS.glob("*.json"))
WIDGETS = {
    "prompt": "a green star moving left on snow",
    "negative_prompt": "",
    "seed": 3,
    "steps": 3,
    "cfg": 3.0,
    "sampler_name": "euler",
    "scheduler": "normal",
    "preset": "demo",
    "strength": 1.0,
}


def subgraph_of(path: Path) -> dict[str, Any]:
    (subgraph,) = json.loads(path.read_text(encoding="utf-8"))["definitions"]["subgraphs"]
    return subgraph


def test_every_blueprint_is_written_and_described() -> None:
    assert [path.stem for path in FILES] == sorted(WRITERS)
    for path in FILES:
        assert subgraph_of(path)["name"] == path.stem and subgraph_of(path)["description"].endswith(".")


@pytest.mark.parametrize("name", WRITERS)
def test_a_blueprint_is_in_step_with_the_nodes(comfy_server, name: str) -> None:
    """`python -m scripts.make_blueprints` writes them anew after a change of the nodes."""
    written = build(name, comfy_server.object_info())
    saved = json.loads((SUBGRAPHS / f"{name}.json").read_text(encoding="utf-8"))
    for now, then in zip(nodes_of(written), nodes_of(saved), strict=True):
        assert {**now, "properties": {}, "outputs": []} == {**then, "properties": {}, "outputs": []}


def nodes_of(file: dict[str, Any]) -> list[dict[str, Any]]:
    """What a newer core has more of outputs does not matter: their links are in the other nodes' inputs."""
    return file["definitions"]["subgraphs"][0]["nodes"]


def test_comfyui_offers_them(comfy_server) -> None:
    offered = [entry["name"] for entry in comfy_server.get("/global_subgraphs").values()]
    assert set(WRITERS) <= set(offered)


def with_demo_model(subgraph: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """What runs if the blueprint's sockets hang on the demo model, its widgets say `WIDGETS`, and IMAGEs are saved."""
    inner = {link["id"]: link for link in subgraph["links"]}
    graph = {**subgraph, "links": [link for link in inner.values() if link["origin_id"] > 0 < link["target_id"]]}
    prompt = ui_to_api(graph, object_info)
    outer = {"model": ["demo", 0], "clip": ["demo", 1], "vae": ["demo", 2], "latent_image": ["frames", 0], **WIDGETS}
    for slot in subgraph["inputs"]:
        for link in map(inner.get, slot["linkIds"]):
            assert link["origin_id"] == INLET
            node = next(node for node in subgraph["nodes"] if node["id"] == link["target_id"])
            name = node["inputs"][link["target_slot"]]["name"]
            prompt[str(node["id"])]["inputs"][name] = outer[slot["name"]]
    set_inputs(prompt, "MotionPromptKSampler", guide="tokens")  # at three steps no estimate is clear
    prompt["demo"] = {"class_type": "MotionPromptLoadDemoVideoModel", "inputs": {}}
    frames = {"width": 64, "height": 64, "batch_size": 4}
    prompt["frames"] = {"class_type": "EmptyLatentImage", "inputs": frames}
    for slot in subgraph["outputs"]:
        (link,) = map(inner.get, slot["linkIds"])
        assert link["target_id"] == OUTLET
        source = [str(link["origin_id"]), link["origin_slot"]]
        kind, name = {"IMAGE": ("SaveImage", "images"), "STRING": ("PreviewAny", "source")}.get(slot["type"], ("", ""))
        if kind:
            more = {"filename_prefix": f"blueprints/{slot['name']}"} if kind == "SaveImage" else {}
            prompt[slot["name"]] = {"class_type": kind, "inputs": {name: source, **more}}
        if slot["type"] == "MOTIONPROMPT_REPORT":
            prompt["report"] = {"class_type": "MotionPromptReport", "inputs": {"report": source}}
    return prompt


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem.split()[-1])
def test_a_blueprint_runs(comfy_server, path: Path) -> None:
    prompt = with_demo_model(subgraph_of(path), comfy_server.object_info())
    result = comfy_server.queue(prompt)
    assert "state: done" in result.text("report") and "guided steps: [" in result.text("report")
    if path.stem.endswith("after"):
        before, after, both = (result.files(name) for name in ("before", "after", "side_by_side"))
        assert len(before) == len(after) == len(both) == 4
        assert before[3].read_bytes() != after[3].read_bytes()
        with Image.open(both[3]) as picture:
            assert picture.width > picture.height
        assert "images - compare_with" in result.text("table")
        assert [line.split(": ")[0] for line in result.text("verdict").splitlines()] == ["compare_with", "images"]
    else:
        assert len(result.files("images")) == 4
