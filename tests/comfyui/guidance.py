"""Guidance settings for tests: each goes to the node that has its input."""

from __future__ import annotations

from typing import Any

from scripts.workflow import Prompt, WorkflowError, find_nodes

SLIDERS = {
    "preset",
    "strength",
    "mode",
    "guide",
    "start",
    "stop",
    "preserve_motion",
    "preserve_detail",
    "checkpointing",
}


def shared_out(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a sampling node, and those for MotionPrompt Settings, in its widgets' words."""
    rest = {name: value for name, value in options.items() if name not in SLIDERS}
    in_words = {name: ("on" if value else "off") if isinstance(value, bool) else value for name, value in rest.items()}
    return {name: value for name, value in options.items() if name in SLIDERS}, in_words


def set_guidance(prompt: Prompt, **options: Any) -> list[str]:
    """Change the settings of every MotionPrompt KSampler, whatever node of the prompt has them; returns their ids.

    One that has no MotionPrompt Settings gets it.
    """
    samplers = find_nodes(prompt, "MotionPromptKSampler")
    if not samplers:
        raise WorkflowError("the prompt has no MotionPromptKSampler node")
    sliders, rest = shared_out(options)
    for node in samplers:
        inputs = prompt[node]["inputs"]
        inputs.update(sliders)
        if rest:
            name, _ = inputs.setdefault("settings", [f"settings of {node}", 0])
            empty = {"class_type": "MotionPromptSettings", "inputs": {}, "_meta": {"title": "Settings"}}
            prompt.setdefault(name, empty)["inputs"].update(rest)
    return samplers
