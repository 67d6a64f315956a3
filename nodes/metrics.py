"""Temporal Metrics."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io, ui

from ..motionprompt_core.metrics.comparison import Clip, draw, table, to_dict
from ..motionprompt_core.metrics.consistency import consistency
from ..motionprompt_core.metrics.measure import measure_video
from .host.models import ManagedModel
from .host.schema import DiscriminatorType, FlowModelType, make, schema
from .host.vision import dino_embedder, frames_on_device, vision_embedder


class TemporalMetrics(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptTemporalMetrics",
            display_name="Temporal Metrics",
            description="Measures flicker, smoothness, motion and sharpness of one video, or of two side by side. Says "
            "which formulas are VBench's, and when a video does not move at all.",
            search_aliases=["motionprompt", "vbench", "flicker", "temporal consistency"],
            is_output_node=True,
            inputs=[
                make(io.Image.Input, "images", tooltip="The video's frames, at least 3, in their order."),
                make(
                    FlowModelType.Input,
                    "flow_model",
                    tooltip="Measures the motion. Another one than guided the video judges more fairly; raft_large is "
                    "VBench's kind.",
                ),
                make(
                    io.Float.Input,
                    "fps",
                    default=8.0,
                    min=1.0,
                    max=240.0,
                    step=0.5,
                    tooltip="Frames a second of the video. Only dynamic_degree depends on it: it looks at about 8 a "
                    "second.",
                ),
                make(
                    io.Image.Input,
                    "compare_with",
                    optional=True,
                    tooltip="A second video, for instance without the guidance. The table shows images minus this one.",
                ),
                make(
                    DiscriminatorType.Input,
                    "discriminator",
                    optional=True,
                    tooltip="Adds its score, how real the motion looks to it. It flatters the videos that it guided.",
                ),
                make(
                    io.ClipVision.Input,
                    "clip_vision",
                    optional=True,
                    tooltip="Adds background consistency. VBench's figure is that of CLIP ViT-B/32; other vision "
                    "models give other figures.",
                ),
            ],
            outputs=[
                make(io.String.Output, display_name="table", tooltip="The numbers as a table, for Preview Any."),
                make(io.Image.Output, display_name="plot", tooltip="Change and speed along the video, and the table."),
                make(io.String.Output, display_name="json", tooltip="Everything in numbers, as JSON."),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: Any,
        flow_model: ManagedModel,
        fps: float,
        compare_with: Any = None,
        discriminator: ManagedModel | None = None,
        clip_vision: Any = None,
    ) -> io.NodeOutput:
        # The first is what the others are compared with.
        videos = [("images", images)]
        if compare_with is not None:
            videos.insert(0, ("compare_with", compare_with))
        for name, video in videos:
            if len(video) < 3:
                raise ValueError(f"Temporal Metrics: {name} has {len(video)} frame(s), but motion needs at least 3.")
        flow, judge = flow_model.load(), discriminator.load() if discriminator is not None else None
        dino = dino_embedder()
        embedders = {
            "subject_consistency": dino.load() if dino is not None else None,
            "background_consistency": vision_embedder(clip_vision) if clip_vision is not None else None,
        }
        clips = []
        for name, video in videos:
            frames = frames_on_device(video)
            found = {key: consistency(frames, embed) for key, embed in embedders.items() if embed is not None}
            clips.append(Clip(name, measure_video(frames, flow, judge, fps=fps), found))
        plot = draw(clips)[None]
        text = table(clips)
        preview = ui.PreviewImage(plot, cls=cls).as_dict()
        return io.NodeOutput(text, plot, json.dumps(to_dict(clips), indent=2), ui={**preview, "text": (text,)})
