"""Runs workflows/train_discriminator.json as it is shipped in a real ComfyUI on the CPU, and says what it took.

    python -m scripts.train_check --comfyui PATH/TO/ComfyUI

Renders the real clips, generates, trains, saves and guides; then loads the saved file with Load Flow Discriminator, as
after a restart, and guides again. Wall-clock time depends on what else the machine does, CPU time much less.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import psutil

from motionprompt_tools.render_clips import render_clips

from .comfy_server import ComfyServer
from .workflow import Prompt, find_nodes, load_workflow, set_inputs, ui_to_api

ROOT = Path(__file__).resolve().parent.parent


def with_saved_file(prompt: Prompt, name: str) -> Prompt:
    """Only what guides a video, with Load Flow Discriminator in the place of the training."""
    prompt = json.loads(json.dumps(prompt))
    (saver,) = find_nodes(prompt, "MotionPromptSaveFlowDiscriminator")
    prompt[saver] = {"class_type": "MotionPromptLoadFlowDiscriminator", "inputs": {"name": name}}
    wanted, kept = set(find_nodes(prompt, "MotionPromptReport")), set()
    while wanted:
        node = wanted.pop()
        kept.add(node)
        wanted |= {value[0] for value in prompt[node]["inputs"].values() if isinstance(value, list)} - kept
    set_inputs(prompt, "MotionPromptKSampler", seed=8)  # else ComfyUI's cache answers
    return {node: prompt[node] for node in prompt if node in kept}


def cpu_seconds(server: ComfyServer) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return times.user + times.system


def run(comfyui: Path, clips: int) -> dict[str, Any]:
    with ComfyServer(comfyui, packs=[ROOT]) as server:
        render_clips(Path(server.base_dir) / "input" / "rendered_clips", clips)
        prompt = ui_to_api(load_workflow(ROOT / "workflows" / "train_discriminator.json"), server.object_info())
        before, started = cpu_seconds(server), time.monotonic()
        with server.watch(
            on_event=lambda name, data: print(name, data.get("node"), flush=True) if name == "executing" else None
        ):
            result = server.queue(prompt, timeout=4 * 3600)
        wall, cpu = time.monotonic() - started, cpu_seconds(server) - before
        saved = next((Path(server.base_dir) / "models" / "motionprompt").glob("*.safetensors"))
        again = server.queue(with_saved_file(prompt, saved.name), timeout=3600)
        return {
            "comfyui": server.version,
            "seconds": wall,
            "cpu_seconds": cpu,
            "peak_memory_gib": server.peak_memory() / 2**30,
            "saved": saved.name,
            "training": result.text(find_nodes(prompt, "MotionPromptTrainFlowDiscriminator")[0]),
            "guided": result.text(find_nodes(prompt, "MotionPromptReport")[0]),
            "guided_by_the_loaded_file": again.text(find_nodes(prompt, "MotionPromptReport")[0]),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path, required=True, help="folder of ComfyUI")
    parser.add_argument("--clips", type=int, default=24, help="real clips to render")
    args = parser.parse_args()
    print(json.dumps(run(args.comfyui, args.clips), indent=2))


if __name__ == "__main__":
    main()
