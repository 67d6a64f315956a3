"""What each workflow asks the guidance for, through its preset, sliders and MotionPrompt Settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.workflow import find_nodes, load_workflow, ui_to_api

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
# Written as what differs from the paper's numbers, as the files had them in 27 widgets before there were presets.
DEMO = {
    "mode": "balanced",
    "start": 0.4,
    "stop": 0.9,
    "preserve_detail": 4.0,
    "learning_rate": 0.03,
    "lambda_tv": 20.0,
    "lambda_reg": 0.0,
    "adversarial": "non_saturating",
    "pairs": 6,
    "max_gap": 3,
    "loss_on": "cfg",
    "outside_window": "tokens",
    "fresh_adam": False,
    "beta2": 0.9,
    "grad_clip": 0.5,
}
TRAINED = {
    "start": 0.1,
    "stop": 0.45,
    "learning_rate": 0.03,
    "lambda_reg": 0.02,
    "adversarial": "non_saturating",
    "max_gap": 3,
    "outside_window": "tokens",
}
COMPARED = [{**DEMO, "strength": strength, "iterations": k} for strength in (0.5, 1.5) for k in (1, 4)]
WANTED = {
    "animatediff_controlnet": [{"mode": "balanced", "adversarial": "wasserstein"}],
    "animatediff_freeinit": [{"mode": "balanced", "adversarial": "wasserstein"}],
    "animatediff_lightning": [{"mode": "balanced", "adversarial": "wasserstein"}],
    "animatediff_long_video": [{"mode": "balanced", "adversarial": "wasserstein", "max_gap": 4}],
    "animatediff_motionprompt": [{"mode": "balanced", "adversarial": "wasserstein"}],
    "compare_settings": COMPARED,
    "quickstart": [{**DEMO, "iterations": 2, "guide": "estimate"}],
    "train_discriminator": [TRAINED],
}
GUIDED = ("MotionPromptKSampler", "MotionPromptSettings")


def resolved(comfy: Any, path: Path) -> list[Any]:
    """The settings of each MotionPrompt KSampler of a workflow file, as the nodes make them."""
    workflow = load_workflow(path)
    types = (*GUIDED, "PrimitiveFloat")
    workflow["nodes"] = [node for node in workflow["nodes"] if node["type"] in types]
    prompt = ui_to_api(workflow, {name: {"input": comfy.node(name).INPUT_TYPES()} for name in types})
    options, found = comfy.module("nodes.options"), []
    for node in find_nodes(prompt, "MotionPromptKSampler"):
        inputs = prompt[node]["inputs"]
        linked = {name: value[0] for name, value in inputs.items() if isinstance(value, list)}
        settings = None
        if "settings" in linked:
            (settings,) = comfy.run("MotionPromptSettings", **prompt[linked["settings"]]["inputs"])
        sliders = {name: inputs[name] for name in options.SLIDERS}
        sliders |= {name: prompt[linked[name]]["inputs"]["value"] for name in options.SLIDERS if name in linked}
        found.append(options.settings_from(inputs["preset"], settings, sliders))
    return found


@pytest.mark.parametrize("name", WANTED)
def test_a_workflow_says_with_its_preset_what_it_said_in_27_numbers(comfy, name):
    settings = comfy.module("motionprompt_core.guidance.settings").GuidanceSettings
    assert resolved(comfy, WORKFLOWS / f"{name}.json") == [settings(**changed) for changed in WANTED[name]]


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_what_a_workflow_asks_for_is_a_preset_in_its_range(comfy, path):
    presets = comfy.module("motionprompt_core.guidance.presets").PRESETS
    assert {settings.preset for settings in resolved(comfy, path)} <= set(presets)
