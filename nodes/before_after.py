"""Before and After."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..motionprompt_core.media.before_after import before_after
from .host.schema import make, schema


class BeforeAfter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptBeforeAfter",
            display_name="Before and After",
            description="Two videos side by side, each over a slice through time: one line of its pixels, frame below "
            "frame. What moves evenly is a straight band there, shake makes it ragged, flicker striped. For Save "
            "Animated WEBP or Create Video.",
            search_aliases=["motionprompt", "compare videos", "side by side", "time slice"],
            inputs=[
                make(io.Image.Input, "before", tooltip="The video on the left, for instance without guidance."),
                make(io.Image.Input, "after", tooltip="The video on the right. If one is smaller, it is scaled."),
            ],
            outputs=[
                make(
                    io.Image.Output,
                    display_name="images",
                    tooltip="The comparison, as many frames as the shorter video has. The red line is where the slices "
                    "are taken: where the left video changes most.",
                )
            ],
        )

    @classmethod
    def execute(cls, before: Any, after: Any) -> io.NodeOutput:
        videos = [video[..., :3].movedim(-1, 1) for video in (before, after)]
        try:
            return io.NodeOutput(before_after(*videos).movedim(1, -1))
        except ValueError as error:
            raise ValueError(f"Before and After: {error}") from error
