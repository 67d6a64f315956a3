"""MotionPrompt Conditioning, MotionPrompt CLIP."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host.learnable_clip import LearnableCLIP
from .host.schema import make, schema
from .host.tokens import PLACEMENTS, learnable_prompt


def _token_inputs() -> list[Any]:
    return [
        make(
            io.Int.Input,
            "token_count",
            default=1,
            min=1,
            max=64,
            tooltip="How many tokens may learn. One is "
            "the paper's choice; 3 push the motion a little more and follow the prompt a little less.",
        ),
        make(
            io.String.Input,
            "init_words",
            default="authentic",
            tooltip="The word or words that the tokens start as, "
            "one token each, repeated if they are fewer. A word for quality works best.",
        ),
        make(
            io.Combo.Input,
            "placement",
            options=list(PLACEMENTS),
            default="end",
            tooltip="Where the tokens stand: after the prompt (the paper's choice) or before it, which weighs more.",
        ),
    ]


class MotionPromptConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptConditioning",
            display_name="MotionPrompt Conditioning",
            description="Encodes a prompt with learnable tokens beside it, which MotionPrompt optimises while "
            "sampling. In a stock sampler it acts like the prompt with the init words.",
            search_aliases=["motionprompt", "clip text encode", "learnable prompt"],
            inputs=[
                make(io.Clip.Input, "clip", tooltip="The text encoder; clip skip and LoRAs on it count."),
                make(
                    io.String.Input,
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The prompt, with (word:1.2) weights and embeddings as usual; it may be of any length.",
                ),
                *_token_inputs(),
            ],
            outputs=[
                make(
                    io.Conditioning.Output,
                    display_name="positive",
                    tooltip="Ordinary conditioning that carries the "
                    "learnable tokens. Combine, mask, time or ControlNet it as usual.",
                )
            ],
        )

    @classmethod
    def execute(cls, clip: Any, text: str, token_count: int, init_words: str, placement: str) -> io.NodeOutput:
        return io.NodeOutput(learnable_prompt(clip, text, init_words, token_count, placement).conditioning())


class MotionPromptCLIP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptCLIP",
            display_name="MotionPrompt CLIP",
            description="For nodes that encode text themselves, such as AnimateDiff-Evolved's Prompt Scheduling: every "
            "prompt encoded with this CLIP has learnable tokens, as if MotionPrompt Conditioning had made it. Use it "
            "for the positive prompt only.",
            search_aliases=["motionprompt", "prompt schedule", "prompt travel"],
            inputs=[make(io.Clip.Input, "clip", tooltip="The text encoder."), *_token_inputs()],
            outputs=[make(io.Clip.Output, display_name="clip", tooltip="The text encoder with learnable tokens.")],
        )

    @classmethod
    def execute(cls, clip: Any, token_count: int, init_words: str, placement: str) -> io.NodeOutput:
        return io.NodeOutput(LearnableCLIP(clip, init_words, token_count, placement))
