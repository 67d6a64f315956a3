"""Writes the workflows of workflows/ that share their parts, so that they stay in step with the nodes and each other.

    python -m scripts.make_workflows [names]

Starts a ComfyUI that has AnimateDiff-Evolved, reads the nodes' inputs from it and writes each workflow in the
interface's format. quickstart.json is made by hand; the demo model's settings are read from it, and it is written in
the format of the HTTP API to workflows/api.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import video_workflows
from . import workflow_notes as notes
from .comfy_server import ComfyServer, comfyui_version
from .graph import ADE, CORE, PACK, Graph, Output, Placed
from .locate import animatediff, comfyuis
from .workflow import load_workflow, ui_to_api

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = ROOT / "workflows"
HUB = "https://huggingface.co/"
CHECKPOINT = {
    "name": "v1-5-pruned-emaonly-fp16.safetensors",
    "url": HUB + "Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
    "directory": "checkpoints",
}
MOTION_MODEL = {
    "name": "mm_sd15_v2.safetensors",
    "url": HUB + "conrevo/AnimateDiff-A1111/resolve/main/motion_module/mm_sd15_v2.safetensors",
    "directory": "animatediff_models",
}
LIGHTNING = {
    "name": "animatediff_lightning_8step_comfyui.safetensors",
    "url": HUB + "ByteDance/AnimateDiff-Lightning/resolve/main/animatediff_lightning_8step_comfyui.safetensors",
    "directory": "animatediff_models",
}
CONTROLNET = {
    "name": "control_v11p_sd15_canny_fp16.safetensors",
    "url": HUB
    + "comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/control_v11p_sd15_canny_fp16.safetensors",
    "directory": "controlnet",
}
OURS = "https://github.com/motionprompt/ComfyUI-MotionPrompt/raw/main/weights/"
# These come with the pack; whoever renames one is told the folder.
DISCRIMINATOR, GENERAL = (
    {"name": name, "url": OURS + name, "directory": "motionprompt"}
    for name in (
        "demo_discriminator.safetensors",
        "general_discriminator_research_only.safetensors",
    )
)
PROMPT = "a corgi running along the beach, waves in the background, golden hour, photo"
NEGATIVE = "worst quality, low quality, watermark, text"
SAMPLING = {"seed": 42, "steps": 25, "cfg": 7.5, "sampler_name": "euler", "scheduler": "normal"}
VIEW = 150  # height of the curves and lines that a sampler node shows of its run
APP = ("seed", "strength", "stop", "preserve_motion")  # of a sampler, in the interface's App mode
NEWER_OUTPUTS = 40  # GetVideoComponents has two more by ComfyUI 0.34


def animatediff_motionprompt(graph: Graph) -> None:
    """Text to video, 16 frames."""
    parts = _loaders(graph, notes.ANIMATEDIFF)
    with graph.column("Prompt", 300):
        model = _evolved(graph, parts)
        positive, negative = _prompts(graph, parts)
        latent = _frames(graph, 16)
    latent = _sample(graph, parts, model, positive, negative, latent)
    _look(graph, parts, latent, "animatediff")


def animatediff_long_video(graph: Graph) -> None:
    """48 frames through a sliding context of 16."""
    parts = _loaders(graph, notes.LONG_VIDEO)
    with graph.column("Prompt", 300):
        context = graph.add("ADE_StandardUniformContextOptions", context_length=16, context_overlap=4)
        model = _evolved(graph, parts, context_options=context[0])
        positive, negative = _prompts(graph, parts)
        latent = _frames(graph, 48)
    latent = _sample(graph, parts, model, positive, negative, latent, settings={"max_gap": "4"})
    _look(graph, parts, latent, "long_video")


def animatediff_controlnet(graph: Graph) -> None:
    """The outlines of a video of one's own, repainted."""
    parts = _loaders(graph, notes.CONTROLNET)
    with graph.column("Control", 300, "#88A"):
        video = graph.add("LoadVideo", "Your video", file="input.mp4", room=200)
        images = graph.add("GetVideoComponents", video=video[0], below=NEWER_OUTPUTS)
        first = graph.add("ImageFromBatch", "First 16 frames", image=images[0], length=16)
        scaled = graph.add("ImageScale", image=first[0], upscale_method="lanczos", width=512, height=512, crop="center")
        edges = graph.add("Canny", "Outlines", image=scaled[0])
        net = graph.add("ControlNetLoader", control_net_name=CONTROLNET["name"], models=[CONTROLNET])
    with graph.column("Prompt", 300):
        model = _evolved(graph, parts)
        positive, negative = _prompts(graph, parts)
        controlled = graph.add(
            "ControlNetApplyAdvanced",
            positive=positive,
            negative=negative,
            control_net=net[0],
            image=edges[0],
            strength=0.8,
            end_percent=0.7,
        )
        latent = _frames(graph, 16)
    latent = _sample(graph, parts, model, controlled[0], controlled[1], latent)
    _look(graph, parts, latent, "controlnet")


def animatediff_freeinit(graph: Graph) -> None:
    """FreeInit: the schedule is gone through twice, the second time from a steadier noise."""
    parts = _loaders(graph, notes.FREEINIT)
    with graph.column("Prompt", 300):
        options = graph.add("ADE_IterationOptsFreeInit", iterations=2)
        settings = graph.add("ADE_AnimateDiffSamplingSettings", iteration_opts=options[0])
        model = _evolved(graph, parts, sample_settings=settings[0])
        positive, negative = _prompts(graph, parts)
        latent = _frames(graph, 16)
    latent = _sample(graph, parts, model, positive, negative, latent)
    _look(graph, parts, latent, "freeinit")


def animatediff_lightning(graph: Graph) -> None:
    """A motion model distilled to eight steps: the window is a share of the steps and scales with them."""
    parts = _loaders(graph, notes.LIGHTNING, LIGHTNING)
    with graph.column("Prompt", 300):
        model = _evolved(graph, parts, beta_schedule="autoselect")
        positive, negative = _prompts(graph, parts)
        latent = _frames(graph, 16)
    latent = _sample(
        graph,
        parts,
        model,
        positive,
        negative,
        latent,
        steps=8,
        cfg=1.0,
        scheduler="sgm_uniform",
    )
    _look(graph, parts, latent, "lightning")


def compare_settings(graph: Graph) -> None:
    """Two values of one slider by two of another, and the plain video, with the demo model."""
    demo = _demo_settings(graph.object_info)
    with graph.column("Model", 300):
        model = graph.add("MotionPromptLoadDemoVideoModel")
        flow = graph.add("MotionPromptLoadOpticalFlow", name="lucas_kanade")
        discriminator = graph.add(
            "MotionPromptLoadFlowDiscriminator", name=DISCRIMINATOR["name"], models=[DISCRIMINATOR]
        )
        prompt = graph.add("PrimitiveStringMultiline", "Prompt", value=demo["prompt"], room=90)
        plain = graph.add("CLIPTextEncode", "Plain prompt", text=prompt[0], clip=model["clip"])
        words = {**demo["tokens"], "text": prompt[0]}
        positive = graph.add("MotionPromptConditioning", clip=model["clip"], green=True, **words)
        negative = graph.add("CLIPTextEncode", "Negative prompt", text="", clip=model["clip"])
        latent = graph.add("EmptyLatentImage", "16 frames of 128 x 128", width=128, height=128, batch_size=16)
    with graph.column("Compare", 300, "#3f789e"):
        graph.note("Two sliders, two values each", notes.COMPARE)
        across = [
            graph.add("PrimitiveFloat", f"{side} column: strength", value=value, green=True)
            for side, value in (("Middle", 0.5), ("Right", 1.5))
        ]
        down = [
            graph.add("MotionPromptSettings", f"{side} row: iterations", iterations=str(value), green=True)
            for side, value in (("Upper", 1), ("Lower", 4))
        ]
    shared = {"negative": negative[0], "latent_image": latent[0], "model": model[0], **demo["sampling"]}
    guided = {"vae": model["vae"], "flow_model": flow[0], "discriminator": discriminator[0], **demo["guidance"]}
    guided["guide"] = "tokens"  # the sliders that are compared are the tokens'
    with graph.column("Plain", 300, "#88A"):
        sampled = graph.add("KSampler", "Plain KSampler", positive=plain[0], **shared)
    columns: list[list[Placed]] = []
    for name, strength in zip(("Middle", "Right"), across, strict=True):
        with graph.column(f"{name} column", 310, "#8A8"):
            columns.append(
                [
                    graph.add(
                        "MotionPromptKSampler",
                        f"{name} column, {row} row",
                        below=VIEW,
                        green=True,
                        **{
                            **shared,
                            **guided,
                            "positive": positive[0],
                            "strength": strength[0],
                            "settings": settings[0],
                        },
                    )
                    for row, settings in zip(("upper", "lower"), down, strict=True)
                ]
            )
    with graph.column("Look", 300):
        first = graph.add("VAEDecode", "Plain", samples=sampled[0], vae=model["vae"])
        pictures = [
            [graph.add("VAEDecode", item.node["title"], samples=item[0], vae=model["vae"]) for item in column]
            for column in columns
        ]
        stitch = {"match_image_size": False, "spacing_width": 8, "spacing_color": "white"}
        stacks = [
            graph.add("ImageStitch", image1=upper[0], image2=lower[0], direction="down", **stitch)
            for upper, lower in [[first, first], *pictures]
        ]
        row = graph.add("ImageStitch", image1=stacks[0][0], image2=stacks[1][0], direction="right", **stitch)
        row = graph.add("ImageStitch", image1=row[0], image2=stacks[2][0], direction="right", **stitch)
    with graph.column("Plain | middle | right", 640, "#b58b2a"):
        graph.add(
            "SaveAnimatedWEBP",
            "Left: plain. Middle and right: the two strengths. Upper and lower: the iterations",
            images=row[0],
            filename_prefix="motionprompt/compare_settings",
            fps=8.0,
            room=460,
        )
        graph.add(
            "MotionPromptReport", "Report of the last one: right column, lower row", report=columns[1][1][1], room=460
        )


def steady_motion(graph: Graph) -> None:
    """The same seed plain and with Steady Motion, with the demo model."""
    demo = _demo_settings(graph.object_info)
    with graph.column("Model", 300):
        model = graph.add("MotionPromptLoadDemoVideoModel")
        steady = graph.add("MotionPromptSteadyMotion", below=VIEW, green=True, model=model["model"], vae=model["vae"])
        graph.note("One node, one slider", notes.STEADY_MOTION)
    with graph.column("Prompt", 300):
        positive = graph.add("CLIPTextEncode", "Prompt", text=demo["prompt"], clip=model["clip"])
        negative = graph.add("CLIPTextEncode", "Negative prompt", text="", clip=model["clip"])
        latent = graph.add("EmptyLatentImage", "16 frames of 128 x 128", width=128, height=128, batch_size=16)
    shared = {"positive": positive[0], "negative": negative[0], "latent_image": latent[0], **demo["sampling"]}
    with graph.column("Sampling", 300):
        samplers = [
            graph.add("KSampler", title, model=source[0], **shared)
            for title, source in (("Plain", model), ("Steady", steady))
        ]
    with graph.column("Plain | steady", 460, "#b58b2a"):
        videos = [graph.add("VAEDecode", one.node["title"], samples=one[0], vae=model["vae"]) for one in samplers]
        both = graph.add("MotionPromptBeforeAfter", before=videos[0][0], after=videos[1][0])
        saving = {"filename_prefix": "motionprompt/steady_motion", "fps": 8.0}
        saved = graph.add("SaveAnimatedWEBP", images=both[0], room=400, **saving)
    graph.in_app(positive, "text")
    graph.in_app(steady, "strength")
    graph.in_app(saved)


def measure_video(graph: Graph) -> None:
    """Temporal metrics of a video of one's own."""
    with graph.column("Video", 340, "#3f789e"):
        video = graph.add("LoadVideo", "Your video", file="input.mp4", room=200)
        parts = graph.add("GetVideoComponents", video=video[0], below=NEWER_OUTPUTS)
        frames = graph.add("ImageFromBatch", "First 48 frames", image=parts["images"], length=48)
        flow = graph.add("MotionPromptLoadOpticalFlow", name="lucas_kanade_coarse")
        graph.note("What the numbers are for", notes.MEASURE)
    with graph.column("Look", 640):
        metrics = graph.add(
            "MotionPromptTemporalMetrics", green=True, images=frames[0], flow_model=flow[0], fps=parts["fps"], room=420
        )
        graph.add("PreviewAny", "Table", source=metrics["table"], room=260)
    graph.in_app(video, "file")
    graph.in_app(metrics)


WRITERS: dict[str, Callable[[Graph], None]] = {
    "animatediff_motionprompt": animatediff_motionprompt,
    "animatediff_long_video": animatediff_long_video,
    "animatediff_controlnet": animatediff_controlnet,
    "animatediff_freeinit": animatediff_freeinit,
    "animatediff_lightning": animatediff_lightning,
    "compare_settings": compare_settings,
    "measure_video": measure_video,
    "steady_motion": steady_motion,
    **video_workflows.WRITERS,
}


def build(name: str, object_info: Mapping[str, Any], core_version: str = "0.3.75") -> dict[str, Any]:
    """One workflow in the interface's format."""
    graph = Graph(object_info, name, {CORE: core_version, PACK: "0.1.0", ADE: "1.5.7"})
    WRITERS[name](graph)
    return graph.to_dict()


def _loaders(graph: Graph, note: str, motion_model: dict[str, str] = MOTION_MODEL) -> dict[str, Any]:
    with graph.column("Model", 340):
        checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name=CHECKPOINT["name"], models=[CHECKPOINT])
        motion = graph.add("ADE_LoadAnimateDiffModel", model_name=motion_model["name"], models=[motion_model])
        flow = graph.add("MotionPromptLoadOpticalFlow", name="lucas_kanade_coarse")
        judge = graph.add("MotionPromptLoadFlowDiscriminator", name=GENERAL["name"], models=[GENERAL])
        graph.note("What goes where", note)
    return {"checkpoint": checkpoint, "motion": motion, "flow": flow, "judge": judge}


def _evolved(graph: Graph, parts: Mapping[str, Any], **options: Any) -> Output:
    applied = graph.add("ADE_ApplyAnimateDiffModelSimple", motion_model=parts["motion"][0])
    options = {"beta_schedule": "sqrt_linear (AnimateDiff)", **options}
    return graph.add("ADE_UseEvolvedSampling", model=parts["checkpoint"]["MODEL"], m_models=applied[0], **options)[0]


def _prompts(graph: Graph, parts: Mapping[str, Any]) -> tuple[Output, Output]:
    clip = parts["checkpoint"]["CLIP"]
    positive = graph.add("MotionPromptConditioning", text=PROMPT, clip=clip, green=True)
    graph.in_app(positive, "text")
    return positive[0], graph.add("CLIPTextEncode", "Negative prompt", text=NEGATIVE, clip=clip)[0]


def _frames(graph: Graph, number: int) -> Output:
    title = f"{number} frames of 512 x 512"
    return graph.add("EmptyLatentImage", title, width=512, height=512, batch_size=number)[0]


def _sample(
    graph: Graph,
    parts: dict[str, Any],
    model: Output,
    positive: Output,
    negative: Output,
    latent: Output,
    settings: Mapping[str, Any] | None = None,
    **changed: Any,
) -> Output:
    with graph.column("Sampling", 330):
        if settings:
            changed["settings"] = graph.add("MotionPromptSettings", green=True, **settings)[0]
        sampler = graph.add(
            "MotionPromptKSampler",
            below=VIEW,
            green=True,
            model=model,
            positive=positive,
            negative=negative,
            latent_image=latent,
            vae=parts["checkpoint"]["VAE"],
            flow_model=parts["flow"][0],
            discriminator=parts["judge"][0],
            **{**SAMPLING, **changed},
        )
    graph.in_app(sampler, *APP)
    parts["report"] = sampler[1]
    return sampler[0]


def _look(graph: Graph, parts: Mapping[str, Any], latent: Output, prefix: str) -> None:
    with graph.column("Look", 540):
        frames = graph.add("VAEDecode", samples=latent, vae=parts["checkpoint"]["VAE"])
        saved = graph.add(
            "SaveAnimatedWEBP",
            images=frames[0],
            filename_prefix=f"motionprompt/{prefix}",
            fps=8.0,
            lossless=False,
            quality=90,
            room=480,
        )
        report = graph.add("MotionPromptReport", report=parts["report"], room=420)
    graph.in_app(saved)
    graph.in_app(report)


def _demo_settings(object_info: Mapping[str, Any]) -> dict[str, Any]:
    """Prompt, tokens, sampling and guidance of quickstart.json, so that both tell the same story."""
    prompt = ui_to_api(load_workflow(WORKFLOWS / "quickstart.json"), object_info)
    by_type = {node["class_type"]: node["inputs"] for node in prompt.values()}
    values = {name: value for name, value in by_type["MotionPromptKSampler"].items() if not isinstance(value, list)}
    sampling = {name: values.pop(name) for name in (*SAMPLING, "denoise")}
    tokens = {name: value for name, value in by_type["MotionPromptConditioning"].items() if not isinstance(value, list)}
    return {
        "prompt": by_type["PrimitiveStringMultiline"]["value"],
        "tokens": tokens,
        "sampling": sampling,
        "guidance": values,
    }


def main(names: list[str]) -> None:
    core = comfyuis()[0]  # the oldest one: its inputs exist in every other
    packs = [ROOT, *([found] if (found := animatediff()) else [])]
    with ComfyServer(core, packs) as server:
        object_info = server.object_info()
    for name in names or WRITERS:
        write(WORKFLOWS / f"{name}.json", build(name, object_info, comfyui_version(core)))
    write(WORKFLOWS / "api" / "quickstart.json", quickstart_api(object_info))


def quickstart_api(object_info: Mapping[str, Any]) -> dict[str, Any]:
    """quickstart.json as docs/queue_by_api.py sends it."""
    return ui_to_api(load_workflow(WORKFLOWS / "quickstart.json"), object_info)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """A file of JSON with the same bytes on every system."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
