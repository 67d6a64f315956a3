"""Workflow files to prompts: what the frontend's "Export (API)" gives for the same graph."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.workflow import WorkflowError, find_nodes, load_workflow, set_inputs, ui_to_api

INFO: dict[str, Any] = {
    "Loader": {
        "display_name": "Load It",
        "input": {"required": {"file": [["a.safetensors", "b.safetensors"], {}]}},
        "input_order": {"required": ["file"]},
    },
    "Encode": {
        "input": {"required": {"text": ["STRING", {"multiline": True}], "clip": ["CLIP", {}]}},
        "input_order": {"required": ["text", "clip"]},
    },
    "Lora": {
        "input": {"required": {"model": ["MODEL", {}], "clip": ["CLIP", {}], "strength": ["FLOAT", {"default": 1.0}]}},
        "input_order": {"required": ["model", "clip", "strength"]},
    },
    "Sampler": {
        "input": {
            "required": {
                "model": ["MODEL", {}],
                "seed": ["INT", {"default": 0, "control_after_generate": True}],
                "steps": ["INT", {"default": 20}],
                "sampler_name": ["COMBO", {"options": ["euler", "heun"]}],
                "positive": ["CONDITIONING", {}],
            },
            "optional": {
                "mask": ["FLOAT", {"forceInput": True}],
                "strength": ["FLOAT", {"default": 0.5}],
            },
        },
        "input_order": {
            "required": ["model", "seed", "steps", "sampler_name", "positive"],
            "optional": ["mask", "strength"],
        },
    },
    "Save": {
        "input": {
            "required": {
                "images": ["IMAGE", {}],
                "image": [["x.png"], {"image_upload": True}],
                "prefix": ["STRING", {"default": "out"}],
            }
        },
        "input_order": {"required": ["images", "image", "prefix"]},
    },
}


def node(id_: int, type_: str, widgets: Any = (), inputs: Any = (), outputs: Any = (), **more: Any) -> dict[str, Any]:
    """A node as the frontend saves it; inputs are (name, type, link), outputs are types."""
    slots = [{"name": name, "type": kind, "link": link} for name, kind, link in inputs]
    saved = widgets if isinstance(widgets, dict) else list(widgets)
    return {
        "id": id_,
        "type": type_,
        "mode": 0,
        "order": id_,
        "inputs": slots,
        "outputs": [{"name": kind, "type": kind} for kind in outputs],
        "widgets_values": saved,
        **more,
    }


def graph() -> dict[str, Any]:
    """Loader -> Lora -> Reroute -> Sampler, with a Primitive for the steps and a note."""
    return {
        "nodes": [
            node(1, "Loader", ["b.safetensors"], outputs=["MODEL", "CLIP"]),
            node(2, "Lora", [0.7], [("model", "MODEL", 1), ("clip", "CLIP", 2)], ["MODEL", "CLIP"]),
            node(3, "Encode", ["a cat"], [("clip", "CLIP", 4)], ["CONDITIONING"], title="Positive"),
            node(4, "Reroute", [], [("", "*", 3)], ["MODEL"]),
            node(5, "PrimitiveNode", [12, "fixed"], outputs=["INT"]),
            node(
                6,
                "Sampler",
                [99, "randomize", 20, "heun", 0.25],
                [("model", "MODEL", 5), ("positive", "CONDITIONING", 6), ("mask", "FLOAT", None), ("steps", "INT", 7)],
                ["IMAGE"],
            ),
            node(7, "Save", ["x.png", "clip", "image"], [("images", "IMAGE", 8)]),
            node(8, "MarkdownNote", ["read me"]),
        ],
        "links": [
            [1, 1, 0, 2, 0, "MODEL"],
            [2, 1, 1, 2, 1, "CLIP"],
            [3, 2, 0, 4, 0, "*"],
            [4, 2, 1, 3, 0, "CLIP"],
            [5, 4, 0, 6, 0, "MODEL"],
            [6, 3, 0, 6, 1, "CONDITIONING"],
            [7, 5, 0, 6, 3, "INT"],
            [8, 6, 0, 7, 0, "IMAGE"],
        ],
    }


def mode(workflow: dict[str, Any], id_: int, value: int) -> dict[str, Any]:
    next(item for item in workflow["nodes"] if item["id"] == id_)["mode"] = value
    return workflow


def test_links_widgets_and_companions() -> None:
    prompt = ui_to_api(graph(), INFO)
    assert list(prompt) == ["1", "2", "3", "6", "7"]
    assert prompt["6"]["inputs"] == {
        "model": ["2", 0],
        "seed": 99,
        "steps": 12,  # from the Primitive, not the widget
        "sampler_name": "heun",
        "positive": ["3", 0],
        "strength": 0.25,
    }
    assert prompt["7"]["inputs"] == {"images": ["6", 0], "image": "x.png", "prefix": "clip"}
    assert prompt["3"] == {
        "class_type": "Encode",
        "inputs": {"text": "a cat", "clip": ["2", 1]},
        "_meta": {"title": "Positive"},
    }
    assert prompt["1"]["_meta"]["title"] == "Load It"


def test_links_as_objects_mean_the_same() -> None:
    workflow = graph()
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    workflow["links"] = [dict(zip(keys, link, strict=True)) for link in workflow["links"]]
    assert ui_to_api(workflow, INFO) == ui_to_api(graph(), INFO)


def test_bypassed_node_hands_on_the_input_of_the_same_type() -> None:
    prompt = ui_to_api(mode(graph(), 2, 4), INFO)
    assert "2" not in prompt
    assert prompt["6"]["inputs"]["model"] == ["1", 0]
    assert prompt["3"]["inputs"]["clip"] == ["1", 1]


def test_muted_node_and_its_links_vanish() -> None:
    prompt = ui_to_api(mode(graph(), 3, 2), INFO)
    assert "3" not in prompt
    assert "positive" not in prompt["6"]["inputs"]


def test_an_older_file_gets_defaults_for_newer_widgets() -> None:
    workflow = graph()
    workflow["nodes"][5]["widgets_values"] = [99, "fixed", 20, "heun"]
    assert ui_to_api(workflow, INFO)["6"]["inputs"]["strength"] == 0.5


def test_widgets_saved_by_name() -> None:
    workflow = graph()
    workflow["nodes"][6]["widgets_values"] = {"prefix": "named", "videopreview": {}}
    assert ui_to_api(workflow, INFO)["7"]["inputs"]["prefix"] == "named"


def test_conversion_leaves_the_workflow_alone() -> None:
    workflow = graph()
    before = copy.deepcopy(workflow)
    ui_to_api(workflow, INFO)
    assert workflow == before


def test_errors_name_the_node() -> None:
    workflow = graph()
    workflow["nodes"][2]["type"] = "Missing"
    with pytest.raises(WorkflowError, match="node 3 has type 'Missing'"):
        ui_to_api(workflow, INFO)
    with pytest.raises(WorkflowError, match="subgraphs"):
        ui_to_api({**graph(), "definitions": {"subgraphs": [{}]}}, INFO)


def test_changing_inputs_by_class() -> None:
    prompt = ui_to_api(graph(), INFO)
    assert set_inputs(prompt, "Sampler", seed=3, steps=2) == ["6"]
    assert (prompt["6"]["inputs"]["seed"], prompt["6"]["inputs"]["steps"]) == (3, 2)
    with pytest.raises(WorkflowError, match="Sampler has no input stepz; it has"):
        set_inputs(prompt, "Sampler", stepz=2)
    with pytest.raises(WorkflowError, match="no Nothing node"):
        set_inputs(prompt, "Nothing", steps=2)
    assert find_nodes(prompt, "Encode", "Positive") == ["3"]
    assert find_nodes(prompt, "Encode", "Negative") == []


def test_reading_refuses_an_api_file(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(graph()))
    assert load_workflow(path) == graph()
    path.write_text(json.dumps({"1": {"class_type": "Loader", "inputs": {}}}))
    with pytest.raises(WorkflowError, match=r"graph\.json is not a workflow in the interface's format"):
        load_workflow(path)
