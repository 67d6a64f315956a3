"""Clip Seeds, Capture Flow Estimates: many clips from one run, and what the sampler thinks on the way."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..motionprompt_core.discriminator.clips import ClipSettings
from ..motionprompt_core.guidance.settings import GuidanceSettings
from .host import training
from .host.capture import FlowCapture
from .host.models import ManagedModel
from .host.schema import FlowModelType, make, schema, slider

_GUIDED = GuidanceSettings()
EXAMPLES = "a red circle moving left on grass\na blue star moving up at night"


class ClipSeeds(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptClipSeeds",
            display_name="Clip Seeds",
            description="Makes many clips in one run: what is connected to its outputs runs once for each seed. For "
            "the generated side of Flow Dataset.",
            search_aliases=["motionprompt", "seed list", "batch of videos"],
            inputs=[
                make(
                    io.String.Input,
                    "prompts",
                    default=EXAMPLES,
                    multiline=True,
                    tooltip="A prompt on each line; they take turns. Vary what moves and how, as your videos will.",
                ),
                make(
                    io.Int.Input,
                    "count",
                    default=24,
                    min=1,
                    max=1000,
                    tooltip="How many clips. Some dozens teach a small discriminator; all of them are in memory at "
                    "once.",
                ),
                make(
                    io.Int.Input,
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFF0000,
                    control_after_generate=False,
                    tooltip="The first clip's seed; the others count up from it.",
                ),
            ],
            outputs=[
                make(
                    io.String.Output,
                    display_name="prompt",
                    is_output_list=True,
                    tooltip="The clips' prompts, for CLIP Text Encode.",
                ),
                make(
                    io.Int.Output,
                    display_name="seed",
                    is_output_list=True,
                    tooltip="The clips' seeds, for KSampler.",
                ),
            ],
        )

    @classmethod
    def execute(cls, prompts: str, count: int, seed: int) -> io.NodeOutput:
        lines = [line.strip() for line in prompts.splitlines() if line.strip()]
        if not lines:
            raise ValueError("Clip Seeds: there is no prompt. Write one on each line.")
        return io.NodeOutput([lines[i % len(lines)] for i in range(count)], [seed + i for i in range(count)])


class CaptureFlowEstimates(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptCaptureFlow",
            display_name="Capture Flow Estimates",
            description="Keeps the motion of the blurry estimates that the guidance judges, at several noise levels, "
            "whenever the model is sampled. The video stays the same. Flow Dataset adds them to the generated side, so "
            "that the discriminator is not surprised by them.",
            search_aliases=["motionprompt", "tweedie", "train discriminator"],
            inputs=[
                make(io.Model.Input, "model", tooltip="The video model, on its way to any sampler."),
                make(io.Vae.Input, "vae", tooltip="Turns estimates into pictures; the one that the guidance will use."),
                make(FlowModelType.Input, "flow_model", tooltip="Measures their motion; the same as for Flow Dataset."),
                make(
                    io.String.Input,
                    "name",
                    default="my_video_model",
                    tooltip="What they are kept under, in output/motionprompt/captured. Give it to Flow Dataset as "
                    "captured.",
                ),
                slider(
                    "start",
                    _GUIDED.start,
                    0.0,
                    1.0,
                    0.01,
                    "Where in the schedule capturing begins, as a share of the steps: where the guidance will begin.",
                    round=0.001,
                ),
                slider(
                    "stop",
                    _GUIDED.stop,
                    0.0,
                    1.0,
                    0.01,
                    "Where capturing ends: where the guidance will end.",
                    round=0.001,
                ),
                make(
                    io.Int.Input,
                    "pairs",
                    default=2,
                    min=1,
                    max=64,
                    tooltip="Pairs of frames at each step. More teach more of each video and take longer to decode.",
                ),
                make(
                    io.Int.Input,
                    "max_gap",
                    default=4,
                    min=1,
                    max=1000,
                    tooltip="Greatest distance between the frames of a pair, as in Flow Dataset's gaps.",
                ),
            ],
            outputs=[make(io.Model.Output, display_name="model", tooltip="The model, for any sampler node.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        flow_model: ManagedModel,
        name: str,
        start: float,
        stop: float,
        pairs: int,
        max_gap: int,
    ) -> io.NodeOutput:
        if start >= stop:
            raise ValueError(
                f"Capture Flow Estimates: start {start:g} is not below stop {stop:g}, so no step would be looked at."
            )
        capture = FlowCapture(
            vae,
            flow_model,
            training.capture_folder(name),
            start,
            stop,
            pairs,
            tuple(range(1, max_gap + 1)),
            ClipSettings().grid,
        )
        return io.NodeOutput(capture.attach(model))
