"""Writes the subgraph blueprints of subgraphs/, so that they stay in step with the nodes.

    python -m scripts.make_blueprints

Starts the oldest ComfyUI and reads the nodes' inputs from it, as `make_workflows` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .blueprint import Blueprint
from .comfy_server import ComfyServer, comfyui_version
from .graph import CORE, PACK, Output, Placed
from .locate import comfyuis
from .make_workflows import GENERAL, VIEW, write

ROOT = Path(__file__).resolve().parent.parent
SUBGRAPHS = ROOT / "subgraphs"
NEEDED = "Needs no download: the flow model has no weights, and the general discriminator (research only) comes along."
SOCKETS = {"model": "MODEL", "clip": "CLIP", "vae": "VAE", "latent_image": "LATENT"}
SAMPLER = {"seed": "INT", "steps": "INT", "cfg": "FLOAT", "sampler_name": "COMBO", "scheduler": "COMBO"}
GUIDANCE = {"preset": "COMBO", "strength": "FLOAT"}


def guided_sampler(blueprint: Blueprint) -> None:
    """Prompt to frames, guided."""
    sockets: dict[str, Any] = {name: blueprint.input(name, kind) for name, kind in SOCKETS.items()}
    with blueprint.column("Prompt", 300):
        text = blueprint.input("prompt", "STRING")
        positive = blueprint.add("MotionPromptConditioning", text=text, clip=sockets["clip"])[0]
        negative = _negative(blueprint, sockets)
        judges = _judges(blueprint)
    with blueprint.column("Sampling", 330):
        sampler = _guided(blueprint, sockets, positive, negative, judges, _widgets(blueprint, SAMPLER))
    with blueprint.column("Look", 300):
        frames = blueprint.add("VAEDecode", samples=sampler["latent"], vae=sockets["vae"])
    blueprint.output("images", frames[0])
    blueprint.output("latent", sampler["latent"])
    blueprint.output("report", sampler["report"])


def before_and_after(blueprint: Blueprint) -> None:
    """The plain and the guided video of one seed, side by side and measured."""
    sockets: dict[str, Any] = {name: blueprint.input(name, kind) for name, kind in SOCKETS.items()}
    with blueprint.column("Prompt", 300):
        text = blueprint.input("prompt", "STRING")
        prompt = blueprint.add("PrimitiveStringMultiline", value=text)
        plain = blueprint.add("CLIPTextEncode", "Plain prompt", text=prompt[0], clip=sockets["clip"])
        positive = blueprint.add("MotionPromptConditioning", text=prompt[0], clip=sockets["clip"])[0]
        negative = _negative(blueprint, sockets)
        judges = _judges(blueprint)
    with blueprint.column("Sampling", 330):
        shared = _widgets(blueprint, SAMPLER)
        inputs: dict[str, Any] = {name: sockets[name] for name in ("model", "latent_image")}
        before = blueprint.add("KSampler", "Before", positive=plain[0], negative=negative, **inputs, **shared)
        after = _guided(blueprint, sockets, positive, negative, judges, shared)
    with blueprint.column("Look", 400):
        frames = [
            blueprint.add("VAEDecode", title, samples=sampler[0], vae=sockets["vae"])
            for title, sampler in (("Before", before), ("After", after))
        ]
        both = blueprint.add("MotionPromptBeforeAfter", before=frames[0][0], after=frames[1][0])
        measured = blueprint.add(
            "MotionPromptTemporalMetrics",
            images=frames[1][0],
            compare_with=frames[0][0],
            flow_model=judges["flow_model"],
            room=300,
        )
    blueprint.output("side_by_side", both[0])
    blueprint.output("before", frames[0][0])
    blueprint.output("after", frames[1][0])
    blueprint.output("table", measured["table"])
    blueprint.output("verdict", measured["verdict"])
    blueprint.output("report", after["report"])


def _negative(blueprint: Blueprint, sockets: Mapping[str, Any]) -> Output:
    text = blueprint.input("negative_prompt", "STRING")
    return blueprint.add("CLIPTextEncode", "Negative prompt", text=text, clip=sockets["clip"])[0]


def _guided(
    blueprint: Blueprint,
    sockets: Mapping[str, Any],
    positive: Output,
    negative: Output,
    judges: Mapping[str, Any],
    shared: Mapping[str, Any],
) -> Placed:
    inputs: dict[str, Any] = {name: sockets[name] for name in ("model", "vae", "latent_image")}
    inputs |= {"positive": positive, "negative": negative, **judges, **shared, **_widgets(blueprint, GUIDANCE)}
    return blueprint.add("MotionPromptKSampler", green=True, below=VIEW, **inputs)


def _widgets(blueprint: Blueprint, kinds: Mapping[str, str]) -> dict[str, Any]:
    return {name: blueprint.input(name, kind) for name, kind in kinds.items()}


def _judges(blueprint: Blueprint) -> dict[str, Any]:
    flow = blueprint.add("MotionPromptLoadOpticalFlow", name="lucas_kanade_coarse")
    judge = blueprint.add("MotionPromptLoadFlowDiscriminator", name=GENERAL["name"], models=[GENERAL])
    return {"flow_model": flow[0], "discriminator": judge[0]}


# name of the file -> what makes it, what it is for, and other words that find it
WRITERS: dict[str, tuple[Callable[[Blueprint], None], str, list[str]]] = {
    "MotionPrompt guided sampler": (
        guided_sampler,
        f"Model, prompt and empty frames to a video whose motion is guided while it is sampled. {NEEDED}",
        ["motionprompt", "temporal consistency", "flicker"],
    ),
    "MotionPrompt before and after": (
        before_and_after,
        f"The plain and the guided video of one seed side by side, with their temporal metrics. {NEEDED}",
        ["motionprompt", "compare", "flicker"],
    ),
}


def build(name: str, object_info: Mapping[str, Any], core_version: str = "0.3.75") -> dict[str, Any]:
    """One file of the folder `subgraphs`."""
    fill, description, aliases = WRITERS[name]
    blueprint = Blueprint(object_info, name, {CORE: core_version, PACK: "0.1.0"}, description, aliases)
    fill(blueprint)
    return blueprint.to_dict()


def main() -> None:
    core = comfyuis()[0]
    with ComfyServer(core, [ROOT]) as server:
        object_info = server.object_info()
    for name in WRITERS:
        write(SUBGRAPHS / f"{name}.json", build(name, object_info, comfyui_version(core)))


if __name__ == "__main__":
    main()
