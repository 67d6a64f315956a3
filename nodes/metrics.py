"""Temporal Metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..motionprompt_core.metrics.comparison import Clip, table, to_dict, verdicts
from ..motionprompt_core.metrics.consistency import consistency
from ..motionprompt_core.metrics.measure import measure_video
from .host.checks import check_number
from .host.figure import drawn, written
from .host.models import ManagedModel
from .host.plots import draw_metrics
from .host.schema import DiscriminatorType, FlowModelType, make, schema
from .host.status import node_view
from .host.vision import dino_embedder, frames_on_device, video_frames, vision_embedder

VIDEO_TYPES = [io.Image, io.Video, io.Latent]


class TemporalMetrics(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptTemporalMetrics",
            display_name="Temporal Metrics",
            description="Measures flicker, smoothness, motion and sharpness of one video, or of two side by side, and "
            "says in words whether there is a flash, a seam, a freeze or a drift of the colours, and where. Says which "
            "formulas are VBench's, and when a video does not move at all.",
            search_aliases=["motionprompt", "vbench", "flicker", "temporal consistency", "flash", "seam", "freeze"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                make(
                    io.MultiType.Input,
                    "images",
                    VIDEO_TYPES,
                    tooltip="The video, of at least 3 frames: frames in their order, a video from Load Video, or a "
                    "latent, which vae decodes.",
                ),
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
                    tooltip="Frames a second, where images is not a video, which has its own. Only dynamic_degree "
                    "depends on it: it looks at about 8 a second.",
                ),
                make(
                    io.MultiType.Input,
                    "compare_with",
                    VIDEO_TYPES,
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
                make(io.Vae.Input, "vae", optional=True, tooltip="Decodes the video, if it is a latent."),
                make(
                    io.Int.Input,
                    "seam_at",
                    default=0,
                    min=0,
                    max=100000,
                    optional=True,
                    tooltip="The frame, counted from 0, at which a second part begins, to judge the seam there. 0 "
                    "looks for the worst.",
                ),
            ],
            outputs=[
                make(io.String.Output, display_name="table", tooltip="The numbers as a table, for Preview Any."),
                make(io.Image.Output, display_name="plot", tooltip="Change and speed along the video, and the table."),
                make(io.String.Output, display_name="json", tooltip="Everything in numbers, as JSON."),
                make(
                    io.String.Output,
                    display_name="verdict",
                    tooltip="Whether there is a flash, a seam, a freeze or a drift of the colours, and where: a line "
                    "for each video. It stands on the node, too.",
                ),
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
        vae: Any = None,
        seam_at: int = 0,
    ) -> io.NodeOutput:
        view = node_view(cls)
        # The first is what the others are compared with.
        given = {"compare_with": compare_with, "images": images}
        try:
            check_number("Temporal Metrics", "fps", fps, 1, 240)
            videos = {name: video_frames(name, value, vae) for name, value in given.items() if value is not None}
            clips = _measured(videos, flow_model, fps, discriminator, clip_vision, seam_at)
        except ValueError as error:  # raised here, it would take with it the videos that are still to be saved
            text, found = f"Not measured: {error}", {"videos": [], "error": str(error)}
            said, plot = text, written(text)[None]
        else:
            text, said, found = table(clips), verdicts(clips), to_dict(clips)
            plot = drawn(lambda: draw_metrics(clips), text)[None]
        if view is not None:
            view.show(said)
        preview = ui.PreviewImage(plot, cls=cls).as_dict()
        return io.NodeOutput(text, plot, json.dumps(found, indent=2), said, ui={**preview, "text": (text,)})


def _measured(
    videos: Mapping[str, tuple[Tensor, float | None]],
    flow_model: ManagedModel,
    fps: float,
    discriminator: ManagedModel | None,
    clip_vision: Any,
    seam_at: int,
) -> list[Clip]:
    """
    Raises:
        ValueError: a video cannot be measured.
    """
    for name, (frames, _) in videos.items():
        if len(frames) < 3:
            raise ValueError(f"{name} has {len(frames)} frame(s), but motion needs at least 3.")
    flow, judge = flow_model.load(), discriminator.load() if discriminator is not None else None
    dino = dino_embedder()
    embedders = {
        "subject_consistency": dino.load() if dino is not None else None,
        "background_consistency": vision_embedder(clip_vision) if clip_vision is not None else None,
    }
    clips = []
    for name, (video, own_fps) in videos.items():
        frames = frames_on_device(video)
        found = {key: consistency(frames, embed) for key, embed in embedders.items() if embed is not None}
        measured = measure_video(frames, flow, judge, fps=own_fps or fps, seam_at=seam_at or None)
        clips.append(Clip(name, measured, found))
    return clips
