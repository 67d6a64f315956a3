"""The workflows of LaVie, VideoCrafter2 and DynamiCrafter, with tiny models in place of the files."""

from __future__ import annotations

import pytest
from PIL import Image

from scripts.workflow import find_nodes, load_workflow, set_inputs, ui_to_api
from tests.comfyui.guidance import set_guidance

WORKFLOWS = {
    "lavie_motionprompt": "lavie",
    "videocrafter2_motionprompt": "videocrafter2",
    "dynamicrafter_motionprompt": "dynamicrafter",
    "dynamicrafter_between_images": "dynamicrafter",
}
SIZE, FRAMES = 64, 3


@pytest.mark.parametrize("name", WORKFLOWS)
def test_plain_and_guided_come_out_side_by_side(comfy_server, repo_root, tmp_path, name):
    prompt = ui_to_api(load_workflow(repo_root / "workflows" / f"{name}.json"), comfy_server.object_info())
    (loader,) = find_nodes(prompt, "MotionPromptLoadVideoCheckpoint")
    variant = prompt[loader]["inputs"]["variant"]
    prompt[loader] = {"class_type": "TinyFamilyModel", "inputs": {"family": WORKFLOWS[name]}, "_meta": {"title": ""}}
    small = {"width": SIZE, "height": SIZE}
    if WORKFLOWS[name] == "dynamicrafter":
        prompt["vision"] = {"class_type": "TinyClipVision", "inputs": {}, "_meta": {"title": ""}}
        if variant == "512-interp":
            prompt[loader] = {"class_type": "TinyBetweenImages", "inputs": {}, "_meta": {"title": ""}}
        set_inputs(prompt, "MotionPromptDynamiCrafterImageToVideo", frames=FRAMES, clip_vision=["vision", 0], **small)
        Image.new("RGB", (96, 80), "teal").save(tmp_path / "video_workflow.png")
        set_inputs(prompt, "LoadImage", image=comfy_server.upload(tmp_path / "video_workflow.png"))
    else:
        set_inputs(prompt, "EmptyLatentImage", batch_size=FRAMES, **small)
    for sampler in ("KSampler", "MotionPromptKSampler"):
        set_inputs(prompt, sampler, steps=4)
    set_guidance(prompt, iterations=1, start=0.0, stop=0.25)
    result = comfy_server.queue(prompt, timeout=900)
    with Image.open(result.files(find_nodes(prompt, "SaveAnimatedWEBP")[0])[0]) as video:
        assert (video.n_frames, video.height) == (FRAMES, SIZE) and video.width > 2 * SIZE
    assert "guided steps: [1] of 4" in result.text(
        find_nodes(prompt, "MotionPromptReport")[0]
    )  # the preset begins after the first
