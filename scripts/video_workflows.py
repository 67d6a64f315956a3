"""The workflows of the models that the pack makes native: LaVie, VideoCrafter2, DynamiCrafter. Plain and guided videos
stand side by side, from the same seed. Written by scripts/make_workflows.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import video_notes as notes
from .graph import Graph, Output, Placed

HUB = "https://huggingface.co/"
STABLE_DIFFUSION = {
    "name": "v1-5-pruned-emaonly-fp16.safetensors",
    "url": HUB + "Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
    "directory": "checkpoints",
}
IMAGE_1024, BETWEEN_512 = (
    {"name": name, "url": f"{HUB}Kijai/DynamiCrafter_pruned/resolve/main/{name}", "directory": "checkpoints"}
    for name in ("dynamicrafter_1024_v1_bf16.safetensors", "dynamicrafter_512_interp_v1_bf16.safetensors")
)
GENERAL = {
    "name": "general_discriminator_research_only.safetensors",
    "url": "https://github.com/motionprompt/ComfyUI-MotionPrompt/raw/main/weights/"
    "general_discriminator_research_only.safetensors",
    "directory": "motionprompt",
}
OWN = "(the file's own)"
PROMPT = "a corgi running along the beach, waves in the background, golden hour"
IMAGE_PROMPT = "the person turns the head and smiles, hair moving in the wind"


@dataclass(frozen=True)
class Model:
    """A model of a workflow, and what its authors sample it with.

    Attributes:
        file: name of its file; with `variant` and `encoders` for Load Video Checkpoint. models: files to download.
        size: width and height.
    """

    file: str
    note: str
    cfg: float
    scheduler: str
    size: tuple[int, int] = (512, 320)
    variant: str = "auto"
    encoders: str = OWN
    models: list[dict[str, str]] = field(default_factory=list)

    def sampling(self) -> dict[str, Any]:
        widgets = {"seed": 42, "steps": 50, "cfg": self.cfg}
        return {**widgets, "sampler_name": "euler_ancestral", "scheduler": self.scheduler}


LAVIE = Model(
    "lavie_base.safetensors",
    notes.LAVIE,
    7.5,
    "ddim_uniform",
    encoders=STABLE_DIFFUSION["name"],
    models=[STABLE_DIFFUSION],
)
VIDEOCRAFTER2 = Model("videocrafter2.safetensors", notes.VIDEOCRAFTER2, 12.0, "ddim_uniform")
DYNAMICRAFTER = Model(IMAGE_1024["name"], notes.DYNAMICRAFTER, 7.5, "simple", (1024, 576), "1024", models=[IMAGE_1024])
BETWEEN = Model(BETWEEN_512["name"], notes.BETWEEN, 7.5, "simple", variant="512-interp", models=[BETWEEN_512])


def lavie_motionprompt(graph: Graph) -> None:
    """Text to video with LaVie."""
    parts = _loaders(graph, LAVIE)
    with graph.column("Prompt", 300):
        plain, learnable, negative = _prompts(graph, parts, PROMPT)
        latent = _frames(graph, LAVIE)
    guided, unguided = (learnable, negative), (plain, negative)
    _compare(graph, LAVIE, parts, parts["loader"]["model"], guided, unguided, latent, "lavie")


def videocrafter2_motionprompt(graph: Graph) -> None:
    """Text to video with VideoCrafter2 and its frame rate."""
    parts = _loaders(graph, VIDEOCRAFTER2)
    with graph.column("Prompt", 300):
        plain, learnable, negative = _prompts(graph, parts, PROMPT)
        latent = _frames(graph, VIDEOCRAFTER2)
        guided, unguided = (
            graph.add("MotionPromptVideoFPS", positive=prompt, negative=negative, fps=28.0)
            for prompt in (learnable, plain)
        )
    model = parts["loader"]["model"]
    pairs = (guided[0], guided[1]), (unguided[0], unguided[1])
    _compare(graph, VIDEOCRAFTER2, parts, model, *pairs, latent, "videocrafter2")


def dynamicrafter_motionprompt(graph: Graph) -> None:
    """An image animated by DynamiCrafter."""
    _image_to_video(graph, DYNAMICRAFTER, IMAGE_PROMPT, ["Your image"], "dynamicrafter")


def dynamicrafter_between_images(graph: Graph) -> None:
    """A video from one image to another."""
    _image_to_video(graph, BETWEEN, PROMPT, ["First image", "Last image"], "between")


WRITERS: dict[str, Callable[[Graph], None]] = {
    "lavie_motionprompt": lavie_motionprompt,
    "videocrafter2_motionprompt": videocrafter2_motionprompt,
    "dynamicrafter_motionprompt": dynamicrafter_motionprompt,
    "dynamicrafter_between_images": dynamicrafter_between_images,
}


def _loaders(graph: Graph, model: Model) -> dict[str, Placed]:
    with graph.column("Model", 340):
        loader = graph.add(
            "MotionPromptLoadVideoCheckpoint",
            name=model.file,
            variant=model.variant,
            encoders=model.encoders,
            models=model.models,
            green=True,
        )
        flow = graph.add("MotionPromptLoadOpticalFlow", name="lucas_kanade_coarse")
        judge = graph.add("MotionPromptLoadFlowDiscriminator", name=GENERAL["name"], models=[GENERAL])
        graph.note("What goes where", model.note)
    return {"loader": loader, "flow": flow, "judge": judge}


def _prompts(graph: Graph, parts: Mapping[str, Placed], text: str) -> tuple[Output, Output, Output]:
    """Plain, learnable, negative."""
    clip = parts["loader"]["clip"]
    prompt = graph.add("PrimitiveStringMultiline", "Prompt", value=text, room=90)
    graph.in_app(prompt, "value")
    plain = graph.add("CLIPTextEncode", "Plain prompt", text=prompt[0], clip=clip)
    learnable = graph.add("MotionPromptConditioning", text=prompt[0], clip=clip, green=True)
    return plain[0], learnable[0], graph.add("CLIPTextEncode", "Negative prompt: empty", text="", clip=clip)[0]


def _frames(graph: Graph, model: Model) -> Output:
    width, height = model.size
    title = f"16 frames of {width} x {height}"
    return graph.add("EmptyLatentImage", title, width=width, height=height, batch_size=16)[0]


def _image_to_video(graph: Graph, model: Model, text: str, images: list[str], prefix: str) -> None:
    parts = _loaders(graph, model)
    width, height = model.size
    with graph.column("Prompt", 300):
        plain, learnable, negative = _prompts(graph, parts, text)
        loaded = [graph.add("LoadImage", title, image="example.png", room=300)[0] for title in images]
        shown = dict(zip(("image", "end_image"), loaded, strict=False))
        guided, unguided = (
            graph.add(
                "MotionPromptDynamiCrafterImageToVideo",
                f"{title} prompt with the image",
                positive=prompt,
                negative=negative,
                vae=parts["loader"]["vae"],
                clip_vision=parts["loader"]["clip_vision"],
                width=width,
                height=height,
                **shown,
            )
            for title, prompt in (("Learnable", learnable), ("Plain", plain))
        )
    with graph.column("Guidance", 300, "#88A"):
        rescaled = graph.add("MotionPromptRescaleVideoCFG", model=parts["loader"]["model"])
    pairs = (guided[0], guided[1]), (unguided[0], unguided[1])
    _compare(graph, model, parts, rescaled[0], *pairs, guided["latent"], prefix)


def _compare(
    graph: Graph,
    model: Model,
    parts: Mapping[str, Placed],
    network: Output,
    guided: tuple[Output, Output],
    plain: tuple[Output, Output],
    latent: Output,
    prefix: str,
) -> None:
    """The plain and the guided video, beside each other."""
    shared = {"model": network, "latent_image": latent, **model.sampling()}
    vae = parts["loader"]["vae"]
    with graph.column("Sampling", 330):
        unguided = graph.add("KSampler", "Plain KSampler", positive=plain[0], negative=plain[1], below=220, **shared)
        sampler = graph.add(
            "MotionPromptKSampler",
            below=220,
            green=True,
            positive=guided[0],
            negative=guided[1],
            vae=vae,
            flow_model=parts["flow"][0],
            discriminator=parts["judge"][0],
            **shared,
        )
    with graph.column("Plain | MotionPrompt", 640, "#b58b2a"):
        left = graph.add("VAEDecode", "Plain", samples=unguided[0], vae=vae)
        right = graph.add("VAEDecode", "MotionPrompt", samples=sampler[0], vae=vae)
        stitch = {"match_image_size": False, "spacing_width": 8, "spacing_color": "white", "direction": "right"}
        both = graph.add("ImageStitch", image1=left[0], image2=right[0], **stitch)
        # SaveVideo's inputs changed between ComfyUI 0.3.75 and 0.33
        saving = {"filename_prefix": f"motionprompt/{prefix}", "fps": 8.0, "lossless": False, "quality": 90}
        saved = graph.add("SaveAnimatedWEBP", images=both[0], room=400, **saving)
        report = graph.add("MotionPromptReport", report=sampler[1], room=420)
    graph.in_app(sampler, "strength", "stop", "preserve_motion")
    graph.in_app(saved)
    graph.in_app(report)
