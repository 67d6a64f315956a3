"""Runs workflows/quickstart.json in a real ComfyUI and puts before and after side by side. Called by `run.py demo`.

Writes plain.webp, motionprompt.webp, compare.webp, report.png and report.json, prints a table and where the files are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .comfy_server import ComfyError, ComfyServer, RunResult, comfyui_version
from .locate import bundled_comfyui, check_packages
from .workflow import Prompt, find_nodes, load_workflow, set_inputs, ui_to_api

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = ROOT / "workflows" / "quickstart.json"
VIDEOS = ("plain", "motionprompt", "compare")
# metric, what it is called in the table, which way is better
TABLE = (
    ("discriminator_score", "motion looks real (phi, 0..1)", "higher"),
    ("temporal_flickering", "no flicker (VBench, 0..1)", "higher"),
    ("warping_error", "warping error", "lower"),
    ("flow_acceleration", "jerk, px/frame^2", "lower"),
    ("flow_magnitude", "motion, px/frame", "about the same"),
    ("sharpness", "sharpness", "about the same"),
)


def print_progress(name: str, data: Mapping[str, Any]) -> None:
    """One line per node, and the sampler's steps."""
    if name == "executing" and data.get("node"):
        print(f"  node {data['node']} ...", flush=True)
    if name == "progress":
        end = "\n" if data["value"] == data["max"] else ""
        print(f"\r    step {data['value']:g} of {data['max']}", end=end, flush=True)


def collect(result: RunResult, prompt: Prompt, out: Path) -> dict[str, Path]:
    """Copies what the workflow saved to `out` under plain names."""
    found = {}
    for node in find_nodes(prompt, "SaveAnimatedWEBP"):
        name = Path(prompt[node]["inputs"]["filename_prefix"]).name
        found[name] = out / f"{name}.webp"
        shutil.copyfile(result.files(node)[0], found[name])
    report = find_nodes(prompt, "MotionPromptReport")[0]
    found["report"] = out / "report.png"
    shutil.copyfile(result.files(report)[0], found["report"])
    missing = {*VIDEOS, "report"} - set(found)
    if missing:
        raise ComfyError(f"the workflow did not write {', '.join(sorted(missing))}")
    return found


def measure(files: Mapping[str, Path], prompt: Prompt) -> dict[str, dict[str, Any]]:
    """Temporal metrics of both videos with the workflow's own flow model and discriminator."""
    # Here, as Ctrl-C among the seconds that PyTorch's import takes would end in a traceback.
    from motionprompt_core.discriminator.model import load_discriminator
    from motionprompt_core.flow import load_flow_model
    from motionprompt_core.media.video import read_video
    from motionprompt_core.metrics.measure import measure_video

    flow_model = load_flow_model(prompt[find_nodes(prompt, "MotionPromptLoadOpticalFlow")[0]]["inputs"]["name"])
    name = prompt[find_nodes(prompt, "MotionPromptLoadFlowDiscriminator")[0]]["inputs"]["name"]
    discriminator = load_discriminator(ROOT / "weights" / name)
    return {
        video: measure_video(read_video(files[video])[0], flow_model, discriminator).metrics.to_dict()
        for video in ("plain", "motionprompt")
    }


def print_table(metrics: Mapping[str, Mapping[str, Any]], seconds: float, peak: int) -> None:
    print(f"\n{'':34}{'plain':>14}{'MotionPrompt':>16}   better is")
    for key, label, direction in TABLE:
        before, after = metrics["plain"][key], metrics["motionprompt"][key]
        print(f"{label:34}{before:14.4f}{after:16.4f}   {direction}")
    print(
        f"\nOne video proves nothing: docs/evidence.md says what was measured over several seeds.\n"
        f"{seconds:.0f} s in ComfyUI, peak memory {peak / 2**30:.2f} GiB"
    )


def run(comfyui: Path, out: Path, seed: int | None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    print(f"Starting ComfyUI {comfyui_version(comfyui)} on the CPU ...", flush=True)
    with ComfyServer(comfyui, packs=[ROOT]) as server:
        prompt = ui_to_api(load_workflow(WORKFLOW), server.object_info())
        if seed is not None:
            set_inputs(prompt, "KSampler", seed=seed)
            set_inputs(prompt, "MotionPromptKSampler", seed=seed)
        print(f"Running {WORKFLOW.relative_to(ROOT)}", flush=True)
        with server.watch(on_event=print_progress):
            result = server.queue(prompt)
        files = collect(result, prompt, out)
        guidance = json.loads(result.text(find_nodes(prompt, "PreviewAny")[0]))
        peak = server.peak_memory()
    metrics = measure(files, prompt)
    files["report.json"] = out / "report.json"
    files["report.json"].write_text(
        json.dumps(
            {
                "guidance": guidance,
                "metrics": metrics,
                "seconds": result.seconds,
                "peak_memory_bytes": peak,
            },
            indent=2,
        )
    )
    print_table(metrics, result.seconds, peak)
    for path in files.values():
        print(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comfyui", type=Path, default=bundled_comfyui(), help="folder of a ComfyUI of your own")
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "demo")
    parser.add_argument("--relative-to", type=Path, default=Path(), help="folder that relative paths start from")
    parser.add_argument("--seed", type=int, help="another seed than the workflow's")
    args = parser.parse_args()
    try:
        comfyui, out = ((args.relative_to / path).resolve() for path in (args.comfyui, args.out))
        check_packages(comfyui)
        run(comfyui, out, args.seed)
    except (ComfyError, OSError, ValueError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # run.py says it
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
