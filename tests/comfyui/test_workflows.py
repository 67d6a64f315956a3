"""The workflow files themselves, as users open them, run in a live ComfyUI."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from motionprompt_tools.render_clips import render_clips
from motionprompt_tools.world import random_clip, render
from scripts.make_workflows import WRITERS, build
from scripts.workflow import WorkflowError, find_nodes, load_workflow, set_inputs, ui_to_api
from tests.comfyui.guidance import set_guidance

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))
NEEDS_ADE = {path.stem for path in WORKFLOWS if path.stem.startswith("animatediff_")}
GREEN_STAR = {"shape": "star", "colour": "green", "ground": "snow", "direction": "left"}  # what quickstart asks for


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


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_app_mode_shows_widgets_and_nodes_that_there_are(path):
    """Interfaces drop what they do not find, without a word."""
    workflow = load_workflow(path)
    app = workflow["extra"].get("linearData", {"inputs": [], "outputs": []})
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for node, widget in app["inputs"]:
        slot = next(slot for slot in nodes[node]["inputs"] if slot["name"] == widget)
        assert slot["widget"] == {"name": widget} and slot["link"] is None
    shown = {nodes[node]["type"] for node in app["outputs"]}
    assert shown <= {"SaveAnimatedWEBP", "MotionPromptReport", "MotionPromptTemporalMetrics"}
    assert bool(app["inputs"]) == bool(shown)
    assert shown or path.stem not in ("quickstart", "steady_motion"), "these are for people who want no graph"


def frames_of(path: Path) -> np.ndarray:
    """An animated WebP as (frames, height, width, 3) in [0, 1]."""
    with Image.open(path) as video:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(video)]
    return np.stack(frames).astype(np.float32) / 255


def colours(video: np.ndarray) -> np.ndarray:
    """Which colours there are, wherever they are: each channel's values in order."""
    return np.quantile(video.reshape(-1, 3), np.linspace(0, 1, 101), axis=0)


@pytest.mark.every_version
@pytest.mark.parametrize("guide", ["preset", "tokens"])
def test_quickstart_runs_as_it_is_but_for_fewer_steps(comfy_server, repo_root, guide):
    prompt = ui_to_api(load(repo_root, "quickstart"), comfy_server.object_info())
    set_inputs(prompt, "KSampler", steps=8)
    set_inputs(prompt, "MotionPromptKSampler", steps=8)
    (sampler,) = set_guidance(prompt, iterations=1)
    set_inputs(prompt, "MotionPromptKSampler", guide=guide)
    result = comfy_server.queue(prompt, timeout=900)
    (report,) = find_nodes(prompt, "PreviewAny")
    guidance = json.loads(result.text(report))
    assert guidance["state"] == "done"
    if guide == "tokens":
        assert [step["step"] for step in guidance["steps"]] == guidance["planned"] != []
        assert all(step["fallback"] is None for step in guidance["steps"])
    else:
        assert guidance["planned"] == [] and guidance["correction"]["steps"][-1]["step"] == 8
    videos = {
        Path(prompt[node]["inputs"]["filename_prefix"]).name: result.files(node)[0]
        for node in find_nodes(prompt, "SaveAnimatedWEBP")
    }
    for name, size in (("plain", (128, 128)), ("motionprompt", (128, 128)), ("compare", (544, 432))):
        with Image.open(videos[name]) as video:
            assert (video.n_frames, *video.size) == (16, *size)
    assert videos["plain"].read_bytes() != videos["motionprompt"].read_bytes()
    world = render(random_clip(torch.Generator().manual_seed(0), 0.0, **GREEN_STAR))[0].movedim(1, -1).numpy()
    for name in ("plain", "motionprompt"):
        assert np.square(colours(frames_of(videos[name])) - colours(world)).mean() < 0.01, "0.02 where undone"
    assert prompt[sampler]["inputs"]["seed"] == prompt[find_nodes(prompt, "KSampler")[0]]["inputs"]["seed"]


@pytest.mark.every_version
def test_a_discriminator_is_trained_saved_loaded_and_guides(comfy_server, repo_root):
    folders = {name: Path(comfy_server.base_dir) / name for name in ("input", "models")}
    render_clips(folders["input"] / "rendered_clips", 5)  # two of them stand still, and are left out
    prompt = ui_to_api(load(repo_root, "train_discriminator"), comfy_server.object_info())
    set_inputs(prompt, "MotionPromptClipSeeds", count=3)
    set_inputs(prompt, "KSampler", steps=3)
    set_inputs(prompt, "MotionPromptFlowDataset", size=64, pairs=3, captured="tiny_demo")
    set_inputs(prompt, "MotionPromptCaptureFlow", name="tiny_demo", start=0.0, stop=0.5)
    (train,) = set_inputs(prompt, "MotionPromptTrainFlowDiscriminator", epochs=2)
    set_inputs(prompt, "MotionPromptKSampler", steps=4)
    set_guidance(prompt, iterations=1)
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


def same(prompt):
    """What of a prompt matters: types and inputs."""
    return {node: (item["class_type"], item["inputs"]) for node, item in prompt.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_the_files_are_what_the_script_writes(comfy_server, repo_root, name):
    """`python -m scripts.make_workflows` writes them anew after a change of the nodes."""
    info = comfy_server.object_info()
    if name in NEEDS_ADE and "ADE_UseEvolvedSampling" not in info:
        pytest.skip("AnimateDiff-Evolved is absent")
    written = build(name, info)
    assert same(ui_to_api(written, info)) == same(ui_to_api(load(repo_root, name), info))
    notes = [
        [node["widgets_values"] for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
        for workflow in (written, load(repo_root, name))
    ]
    assert notes[0] == notes[1]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_comfy_lint_finds_nothing_but_files_to_download(comfy_server, tmp_path, path):
    pytest.importorskip("comfy_lint", reason="comfy-lint is not installed")
    info = comfy_server.object_info()
    if path.stem in NEEDS_ADE and "ADE_UseEvolvedSampling" not in info:
        pytest.skip("AnimateDiff-Evolved is absent")
    (tmp_path / "info.json").write_text(json.dumps(info))
    (tmp_path / "prompt.json").write_text(json.dumps(ui_to_api(load_workflow(path), info)))
    start = "import sys; from comfy_lint.cli import main; sys.exit(main())"
    options = ["--strict", "--color", "never", "--schema-cache", "info.json", "prompt.json"]
    found = subprocess.run([sys.executable, "-c", start, *options], cwd=tmp_path, capture_output=True, text=True)
    assert "0 files" not in found.stdout and "1 file" in found.stdout, found.stdout + found.stderr
    lines = [line for line in found.stdout.splitlines() if line.startswith("prompt.json")]
    assert not [line for line in lines if not missing_file(line) and not one_of_several_types(line)]


def one_of_several_types(line: str) -> bool:
    """comfy-lint compares texts, and an input that takes several types has them in one, with commas."""
    found = re.search(r"type-mismatch .* expects ([A-Z_,]+) but .* produces ([A-Z_]+)$", line)
    return found is not None and found[2] in found[1].split(",")


def missing_file(line: str) -> bool:
    return (
        "invalid-enum" in line and re.search(r"'[\w.-]+\.(safetensors|mp4|png)' is not a valid value", line) is not None
    )


def shrink(prompt, frames: int, steps: int, **sampler) -> None:
    """Tiny models in place of the files, a small picture, few steps."""
    replace(prompt, "CheckpointLoaderSimple", "TinyVideoModel", {"dtype": "fp32", "seed": 0})
    replace(prompt, "ADE_LoadAnimateDiffModel", "TinyMotionModel", {"version": "v2"})
    set_inputs(prompt, "EmptyLatentImage", width=128, height=128, batch_size=frames)
    set_inputs(prompt, "MotionPromptKSampler", steps=steps)
    set_guidance(prompt, iterations=1, **sampler)


def run_to_its_end(comfy_server, prompt, frames: int) -> str:
    """Run it; check that the video has its frames; returns the report's text."""
    result = comfy_server.queue(prompt, timeout=900)
    (saved,) = find_nodes(prompt, "SaveAnimatedWEBP")
    with Image.open(result.files(saved)[0]) as video:
        assert video.n_frames == frames
    (report,) = find_nodes(prompt, "MotionPromptReport")
    return result.text(report)


@pytest.mark.every_version
@pytest.mark.ade
def test_animatediff_runs_with_tiny_models_in_place_of_the_files(comfy_server, repo_root):
    prompt = ui_to_api(load(repo_root, "animatediff_motionprompt"), comfy_server.object_info())
    shrink(prompt, 4, 4, start=0.0, stop=0.5)
    assert "guided steps: [1, 2] of 4" in run_to_its_end(comfy_server, prompt, 4)


@pytest.mark.every_version
@pytest.mark.ade
def test_long_video_slides_its_context(comfy_server, repo_root):
    prompt = ui_to_api(load(repo_root, "animatediff_long_video"), comfy_server.object_info())
    assert prompt[find_nodes(prompt, "EmptyLatentImage")[0]]["inputs"]["batch_size"] == 48
    set_inputs(prompt, "ADE_StandardUniformContextOptions", context_length=4, context_overlap=1)
    shrink(prompt, 6, 4, start=0.0, stop=0.25)
    assert "guided steps: [1] of 4" in run_to_its_end(comfy_server, prompt, 6)


@pytest.mark.every_version
@pytest.mark.ade
def test_controlnet_follows_a_video(comfy_server, repo_root):
    prompt = ui_to_api(load(repo_root, "animatediff_controlnet"), comfy_server.object_info())
    replace(prompt, "ControlNetLoader", "TinyControlNet", {})
    name = write_clip(comfy_server.base_dir / "input" / "workflow_clip.mp4", frames=6)
    set_inputs(prompt, "LoadVideo", file=name)
    set_inputs(prompt, "ImageFromBatch", length=4)
    set_inputs(prompt, "ImageScale", width=128, height=128)
    shrink(prompt, 4, 4, start=0.0, stop=0.25)
    assert "guided steps: [1] of 4" in run_to_its_end(comfy_server, prompt, 4)


@pytest.mark.every_version
def test_a_users_video_is_measured(comfy_server, repo_root):
    prompt = ui_to_api(load(repo_root, "measure_video"), comfy_server.object_info())
    name = write_clip(comfy_server.base_dir / "input" / "measured_clip.mp4", frames=6)
    set_inputs(prompt, "LoadVideo", file=name)
    result = comfy_server.queue(prompt, timeout=300)
    (table,) = find_nodes(prompt, "PreviewAny")
    (metrics,) = find_nodes(prompt, "MotionPromptTemporalMetrics")
    assert "temporal_flickering" in result.text(table)
    assert "NO MOTION" not in result.text(table), "the square moves by 8 pixels a frame"
    assert len(result.files(metrics)) == 1


def write_clip(path: Path, frames: int) -> str:
    """A square that moves, as a user's video; returns its name."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(frames):
            picture = np.zeros((64, 96, 3), dtype=np.uint8)
            picture[20:44, 10 + 8 * index : 34 + 8 * index] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.name


@pytest.mark.every_version
@pytest.mark.ade
def test_freeinit_guides_both_passes(comfy_server, repo_root):
    prompt = ui_to_api(load(repo_root, "animatediff_freeinit"), comfy_server.object_info())
    shrink(prompt, 4, 4, start=0.0, stop=0.25)
    assert "guided steps: [1, 1] of 4" in run_to_its_end(comfy_server, prompt, 4)


@pytest.mark.every_version
@pytest.mark.ade
def test_of_lightnings_eight_steps_the_second_and_third_are_guided(comfy_server, repo_root):
    """The note in the workflow promises it: the window scales with the steps."""
    prompt = ui_to_api(load(repo_root, "animatediff_lightning"), comfy_server.object_info())
    shrink(prompt, 4, 8)
    assert "guided steps: [2, 3] of 8" in run_to_its_end(comfy_server, prompt, 4)


@pytest.mark.every_version
def test_compare_settings_runs_as_it_is_but_for_fewer_steps(comfy_server, repo_root):
    prompt = ui_to_api(load(repo_root, "compare_settings"), comfy_server.object_info())
    set_inputs(prompt, "KSampler", steps=4)
    set_inputs(prompt, "MotionPromptKSampler", steps=4)
    set_inputs(prompt, "EmptyLatentImage", batch_size=4)
    for node in find_nodes(prompt, "MotionPromptSettings"):
        prompt[node]["inputs"]["iterations"] = str(min(2, int(prompt[node]["inputs"]["iterations"])))
    result = comfy_server.queue(prompt, timeout=900)
    (saved,) = find_nodes(prompt, "SaveAnimatedWEBP")
    with Image.open(result.files(saved)[0]) as video:
        assert (video.n_frames, video.width, video.height) == (4, 3 * 128 + 2 * 8, 2 * 128 + 8)
        cells = {video.convert("RGB").crop((x, y, x + 128, y + 128)).tobytes() for x in (136, 272) for y in (0, 136)}
    assert len(cells) == 4, "two settings made the same picture"


@pytest.mark.parametrize("name", sorted(NEEDS_ADE))
def test_without_animatediff_the_missing_node_is_named(comfy_server, repo_root, name):
    info = {node: schema for node, schema in comfy_server.object_info().items() if not node.startswith("ADE_")}
    with pytest.raises(WorkflowError, match="ADE_"):
        ui_to_api(load(repo_root, name), info)
