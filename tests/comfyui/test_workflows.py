"""The workflow files themselves, as users open them, run in a live ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from motionprompt_core.demo.render_clips import render_clips
from scripts.workflow import WorkflowError, find_nodes, load_workflow, set_inputs, ui_to_api

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))
NEEDS_ADE = {"animatediff_motionprompt"}


def load(repo_root: Path, name: str):
    return load_workflow(repo_root / "workflows" / f"{name}.json")


def replace(prompt, class_type: str, new_type: str, inputs: dict) -> None:
    """Put another node in the place of the only one of a type; its outputs keep their order."""
    (node,) = find_nodes(prompt, class_type)
    prompt[node] = {"class_type": new_type, "inputs": inputs, "_meta": {"title": new_type}}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_workflow_has_a_thumbnail_a_note_and_origins(path):
    assert path.with_suffix(".jpg").stat().st_size < 500_000
    with Image.open(path.with_suffix(".jpg")) as picture:
        assert picture.width >= 256
    nodes = load_workflow(path)["nodes"]
    assert any(node["type"] == "MarkdownNote" for node in nodes)
    for node in nodes:
        assert node["type"] == "MarkdownNote" or {"cnr_id", "ver"} <= set(node["properties"]), node["type"]


def test_quickstart_runs_as_it_is_but_for_fewer_steps(comfy_server, repo_root):
    prompt = ui_to_api(load(repo_root, "quickstart"), comfy_server.object_info())
    set_inputs(prompt, "KSampler", steps=8)
    (sampler,) = set_inputs(prompt, "MotionPromptKSampler", steps=8, iterations=1)
    result = comfy_server.queue(prompt, timeout=900)
    (report,) = find_nodes(prompt, "PreviewAny")
    guidance = json.loads(result.text(report))
    assert guidance["state"] == "done"
    assert [step["step"] for step in guidance["steps"]] == guidance["planned"] != []
    assert all(step["fallback"] is None for step in guidance["steps"])
    videos = {Path(prompt[node]["inputs"]["filename_prefix"]).name: result.files(node)[0]
              for node in find_nodes(prompt, "SaveAnimatedWEBP")}
    for name, width in (("plain", 128), ("motionprompt", 128), ("compare", 264)):
        with Image.open(videos[name]) as video:
            assert (video.n_frames, video.width, video.height) == (16, width, 128)
    assert videos["plain"].read_bytes() != videos["motionprompt"].read_bytes()
    assert prompt[sampler]["inputs"]["seed"] == prompt[find_nodes(prompt, "KSampler")[0]]["inputs"]["seed"]


def test_a_discriminator_is_trained_saved_loaded_and_guides(comfy_server, repo_root):
    folders = {name: Path(comfy_server.base_dir) / name for name in ("input", "models")}
    render_clips(folders["input"] / "rendered_clips", 3)
    prompt = ui_to_api(load(repo_root, "train_discriminator"), comfy_server.object_info())
    set_inputs(prompt, "MotionPromptClipSeeds", count=3)
    set_inputs(prompt, "KSampler", steps=3)
    set_inputs(prompt, "MotionPromptFlowDataset", size=64, pairs=3, captured="tiny_demo")
    set_inputs(prompt, "MotionPromptCaptureFlow", name="tiny_demo", window_start=0.0, window_end=0.5)
    (train,) = set_inputs(prompt, "MotionPromptTrainFlowDiscriminator", epochs=2)
    set_inputs(prompt, "MotionPromptKSampler", steps=4, iterations=1)
    with comfy_server.watch() as seen:
        result = comfy_server.queue(prompt, timeout=900)
    assert len(result.files(find_nodes(prompt, "SaveAnimatedWEBP", "Keep the clips")[0])) == 3
    assert "generated: 6 clips" in result.text(train) and "AUROC" in result.text(train)
    assert any(data["node"] == train and data["max"] > 1 for data in seen.of("progress"))
    assert len(seen.previews) > 0
    saved = folders["models"] / "motionprompt" / "my_flow_discriminator.safetensors"
    assert saved.is_file()
    (saver,) = find_nodes(prompt, "MotionPromptSaveFlowDiscriminator")
    prompt[saver] = {"class_type": "MotionPromptLoadFlowDiscriminator", "inputs": {"name": saved.name}}
    (sampler,) = find_nodes(prompt, "MotionPromptKSampler")
    needed = {sampler, *find_nodes(prompt, "MotionPromptReport"), saver}
    kept = closure(prompt, needed)
    assert train not in kept
    again = comfy_server.queue({node: prompt[node] for node in kept}, timeout=900)
    assert "guided steps" in again.text(find_nodes(prompt, "MotionPromptReport")[0])


def closure(prompt, wanted: set[str]) -> set[str]:
    """The nodes, and everything that they are made from."""
    found: set[str] = set()
    while wanted:
        node = wanted.pop()
        found.add(node)
        links = [value[0] for value in prompt[node]["inputs"].values() if isinstance(value, list)]
        wanted |= set(links) - found
    return found


@pytest.mark.ade
def test_animatediff_runs_with_tiny_models_in_place_of_the_files(comfy_server, repo_root):
    prompt = ui_to_api(load(repo_root, "animatediff_motionprompt"), comfy_server.object_info())
    replace(prompt, "CheckpointLoaderSimple", "TinyVideoModel", {"dtype": "fp32", "seed": 0})
    replace(prompt, "ADE_LoadAnimateDiffModel", "TinyMotionModel", {"version": "v2"})
    set_inputs(prompt, "EmptyLatentImage", width=128, height=128, batch_size=4)
    set_inputs(prompt, "MotionPromptKSampler", steps=4, window_start=0.0, window_end=0.5, iterations=1)
    result = comfy_server.queue(prompt, timeout=900)
    (saved,) = find_nodes(prompt, "SaveAnimatedWEBP")
    with Image.open(result.files(saved)[0]) as video:
        assert video.n_frames == 4
    (report,) = find_nodes(prompt, "MotionPromptReport")
    assert "guided steps: [0, 1] of 4" in result.text(report)


@pytest.mark.parametrize("name", sorted(NEEDS_ADE))
def test_without_animatediff_the_missing_node_is_named(comfy_server, repo_root, name):
    info = {node: schema for node, schema in comfy_server.object_info().items() if not node.startswith("ADE_")}
    with pytest.raises(WorkflowError, match="ADE_"):
        ui_to_api(load(repo_root, name), info)
