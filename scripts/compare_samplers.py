"""How much a correction of the estimate does under every sampler and scheduler of ComfyUI, beside Euler's.

    python -m scripts.compare_samplers --comfyui FOLDER --seeds 3

Samples the demo model in a real ComfyUI, plain and with Steady Motion, and prints a line for each sampler (with the
scheduler *normal*) and each scheduler (with *euler*). Two measures, each as a share of Euler's: *unsteadiness* removed,
where the unsteadiness of a video is what smoothing its finished frames would still change (root mean square), and
*coherence* gained, the mean of flickering, smoothness and warping error in deviations of plain videos. A stopped run
goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from .comfy_server import ComfyError, ComfyServer
from .locate import bundled_comfyui
from .workflow import Prompt

ROOT = Path(__file__).resolve().parent.parent
EULER, NORMAL = "euler", "normal"
STEPS, FIRST_SEED = 20, 73000
# Standard deviations among the 64 plain videos in docs/evidence.md, and which way is better.
SPREAD = {"temporal_flickering": 0.0078, "motion_smoothness": 0.0056, "warping_error": -0.00039}


def graph(sampler: str, scheduler: str, seed: int, text: str) -> Prompt:
    """Both videos as lossless files: node 20 is the plain one, 21 the corrected one."""

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    def sampled(model: list[Any]) -> dict[str, Any]:
        return node(
            "KSampler",
            model=model,
            positive=["2", 0],
            negative=["3", 0],
            latent_image=["4", 0],
            seed=seed,
            steps=STEPS,
            cfg=3.0,
            sampler_name=sampler,
            scheduler=scheduler,
            denoise=1.0,
        )

    prompt = {
        "1": node("MotionPromptLoadDemoVideoModel"),
        "2": node("CLIPTextEncode", clip=["1", 1], text=text),
        "3": node("CLIPTextEncode", clip=["1", 1], text=""),
        "4": node("EmptyLatentImage", width=128, height=128, batch_size=16),
        "5": node("MotionPromptSteadyMotion", model=["1", 0], vae=["1", 2], strength=1.0),
        "10": sampled(["1", 0]),
        "11": sampled(["5", 0]),
    }
    for name, latents, saved in (("plain", "10", "20"), ("steady", "11", "21")):
        prompt[f"decoded {name}"] = node("VAEDecode", samples=[latents, 0], vae=["1", 2])
        prompt[saved] = node(
            "SaveAnimatedWEBP",
            images=[f"decoded {name}", 0],
            filename_prefix=f"samplers/{name}",
            fps=8.0,
            lossless=True,
            quality=80,
            method="default",
        )
    return prompt


def measured(file: Path) -> dict[str, float]:
    """The metrics of `SPREAD`, and the unsteadiness."""
    from motionprompt_core.estimate.steady import steady
    from motionprompt_core.flow import load_flow_model
    from motionprompt_core.media.video import read_video
    from motionprompt_core.metrics.measure import measure_video

    video, _ = read_video(file)
    found = measure_video(video, load_flow_model("lucas_kanade")).metrics.to_dict()
    change = steady(video, load_flow_model("lucas_kanade_coarse")) - video
    return {**{key: float(found[key]) for key in SPREAD}, "unsteadiness": float(change.square().mean().sqrt())}


def gains(line: dict[str, Any]) -> tuple[float, float]:
    """Share of the unsteadiness that is gone, and coherence gained in deviations."""
    plain, steady = line["plain"], line["steady"]
    coherence = fmean((steady[key] - plain[key]) / spread for key, spread in SPREAD.items())
    return 1 - steady["unsteadiness"] / plain["unsteadiness"], coherence


def ways(server: ComfyServer) -> list[tuple[str, str]]:
    """Euler first, then the other samplers, then the other schedulers."""
    inputs = server.object_info("KSampler")["KSampler"]["input"]["required"]
    menus = [
        spec[0] if isinstance(spec[0], list) else spec[1]["options"]
        for spec in map(inputs.get, ("sampler_name", "scheduler"))
    ]
    samplers, schedulers = menus
    return [
        (EULER, NORMAL),
        *((name, NORMAL) for name in samplers if name != EULER),
        *((EULER, name) for name in schedulers if name != NORMAL),
    ]


def results(comfyui: Path, seeds: int, out: Path) -> Iterator[dict[str, Any]]:
    """One line for each way and seed; those in the file `out` first, new ones are added to it."""
    from research.evaluation.run import prompt_of

    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    yield from done
    known = {(line["sampler"], line["scheduler"], line["seed"]) for line in done}
    out.parent.mkdir(parents=True, exist_ok=True)
    with ComfyServer(comfyui, packs=[ROOT]) as server, out.open("a") as file:
        for sampler, scheduler in ways(server):
            for seed in range(FIRST_SEED, FIRST_SEED + seeds):
                if (sampler, scheduler, seed) in known:
                    continue
                line: dict[str, Any] = {"sampler": sampler, "scheduler": scheduler, "seed": seed}
                try:
                    result = server.queue(graph(sampler, scheduler, seed, prompt_of(seed)[1]))
                    line |= {"plain": measured(result.files("20")[0]), "steady": measured(result.files("21")[0])}
                except ComfyError as error:
                    line["error"] = str(error).splitlines()[0]
                file.write(json.dumps(line) + "\n")
                file.flush()
                yield line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path, default=bundled_comfyui())
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "samplers.jsonl")
    args = parser.parse_args()
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in results(args.comfyui.expanduser(), args.seeds, args.out):
        found.setdefault((line["sampler"], line["scheduler"]), []).append(line)
    euler = [fmean(values) for values in zip(*map(gains, found[EULER, NORMAL]), strict=True)]
    print(f"euler: {euler[0]:.2f} of the unsteadiness gone, coherence {euler[1]:+.2f}\n")
    print("| sampler, scheduler | unsteadiness, of Euler's | coherence, of Euler's |\n|---|---|---|")
    for (sampler, scheduler), lines in found.items():
        made = [gains(line) for line in lines if "error" not in line]
        if made:
            shares = [fmean(values) / of for values, of in zip(zip(*made, strict=True), euler, strict=True)]
            print(f"| {sampler}, {scheduler} | {shares[0]:.2f} | {shares[1]:.2f} |")
        else:
            print(f"| {sampler}, {scheduler} | {lines[0]['error']} | |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
