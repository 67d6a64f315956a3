"""Load Flow Discriminator, Load Optical Flow Model."""

from __future__ import annotations

import textwrap
from typing import Any

from comfy_api.latest import io

from ..motionprompt_core.discriminator.model import load_discriminator
from ..motionprompt_core.flow import available_flow_models, load_flow_model
from .host import folders
from .host.flows import flow_files, managed_flow, optical_flow_file
from .host.models import ManagedModel
from .host.schema import DiscriminatorType, FlowModelType, OpticalFlowType, make, schema

TORCHVISION_FILES = (
    "the weights as a .safetensors file in models/motionprompt or models/optical_flow named after it "
    "(raft_large.safetensors)"
)
MOST_SHOWN = 300  # characters


class LoadFlowDiscriminator(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptLoadFlowDiscriminator",
            display_name="Load Flow Discriminator",
            description="Loads a network that tells real motion from generated motion. It works best on the model "
            "family that it was trained for; the command train-discriminator makes one for your own model.",
            search_aliases=["motionprompt", "motion discriminator"],
            inputs=[
                make(
                    io.Combo.Input,
                    "name",
                    options=folders.discriminator_files(),
                    tooltip="A .safetensors file from models/motionprompt or from the pack's weights folder.",
                ),
            ],
            outputs=[
                make(
                    DiscriminatorType.Output,
                    display_name="discriminator",
                    tooltip="For MotionPrompt KSampler and Apply MotionPrompt.",
                ),
                make(io.String.Output, display_name="info", tooltip="What it was trained on, and how well it did."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str) -> Any:
        path = folders.find(name)
        return str(path), path.stat().st_mtime_ns, path.stat().st_size

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        module = load_discriminator(folders.find(name))
        config = module.config
        lines = [f"model family: {config.family}", f"flow model: {config.flow_model}"]
        lines += [f"trained on: {config.trained_on}"] if config.trained_on else []
        lines += [_measured(key, value) for key, value in module.metadata.items()]
        return io.NodeOutput(ManagedModel(module), "\n".join(lines))


def _measured(key: str, value: object) -> str:
    """A line of what a file says of itself, which may be anything."""
    line = f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}"
    shown = "".join(character if character.isprintable() else " " for character in line)
    return textwrap.shorten(shown, MOST_SHOWN, placeholder=" ...")


class LoadOpticalFlowModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptLoadOpticalFlow",
            display_name="Load Optical Flow Model",
            description="Loads what measures the motion between two frames. lucas_kanade_coarse and lucas_kanade need "
            "no weights, are the quickest, and see no motion in faint shimmer; the coarse one scales frames to 128 px, "
            "which suits large frames and fast motion. raft_large is the paper's, raft_small a fifth of its size (both "
            "from torchvision, from 128 px on). rife_v4.0, and sea_raft_s, sea_raft_m and memfof (three "
            "frames at once, from 256 px on), which say how sure they are of each pixel, are listed where their file "
            "lies.",
            search_aliases=["motionprompt", "raft", "sea-raft", "memfof", "rife", "optical flow"],
            inputs=[
                make(
                    io.Combo.Input,
                    "name",
                    options=available_flow_models(flow_files()),
                    default=available_flow_models()[0],
                    tooltip="Use the one that the discriminator was trained with. For frames of 512 px, RAFT large "
                    "takes 2 GB and a hundred times Lucas-Kanade's time.",
                ),
                make(
                    io.Boolean.Input,
                    "download",
                    default=False,
                    tooltip="Let torchvision fetch RAFT's weights (20 MB or 4 MB) if they are missing. Nothing is ever "
                    f"fetched while this is off. Offline, put {TORCHVISION_FILES}.",
                ),
                make(
                    OpticalFlowType.Input,
                    "optical_flow",
                    optional=True,
                    tooltip="ComfyUI's own optical flow model (RAFT large from models/optical_flow), used in place of "
                    "the name.",
                ),
            ],
            outputs=[
                make(
                    FlowModelType.Output,
                    display_name="flow_model",
                    tooltip="For MotionPrompt KSampler and Apply MotionPrompt.",
                )
            ],
        )

    @classmethod
    def execute(cls, name: str, download: bool, optical_flow: Any = None) -> io.NodeOutput:
        if optical_flow is not None:
            return io.NodeOutput(managed_flow(optical_flow))
        file = f"{name}.safetensors"
        path = folders.find(file) if file in folders.weight_files() else optical_flow_file(name)
        return io.NodeOutput(ManagedModel(load_flow_model(name, path, download=download)))
