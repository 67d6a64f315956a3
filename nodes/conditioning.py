"""MotionPrompt Conditioning."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host.schema import make, schema
from .host.tokens import PLACEMENTS, learnable_prompt


class MotionPromptConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptConditioning",
            display_name="MotionPrompt Conditioning",
            description="Encodes a prompt with learnable tokens beside it, which MotionPrompt optimises while "
            "sampling. In "
            "a stock sampler it acts like the prompt with the init words.",
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
                    tooltip="Where the tokens stand: "
                    "after the prompt (the paper's choice) or before it, which weighs more.",
                ),
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
