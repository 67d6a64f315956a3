"""Steady."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ..motionprompt_core.estimate.steady import margin, steady
from ..motionprompt_core.flow import FlowModel
from ..motionprompt_core.metrics.video import as_video, sharpnesses
from .host.gradients import check_interrupt, out_of_memory
from .host.models import ManagedModel
from .host.schema import FlowModelType, make, schema, slider


class Steady(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptSteady",
            display_name="Steady",
            description="Post-processing: takes shake and flicker out of a finished video along its own motion. It "
            "knows nothing of the model, so what it evens out gets softer; while a video is being sampled, guidance "
            "of the estimate keeps the detail. Only for when there is nothing left but the frames.",
            search_aliases=["motionprompt", "deflicker", "stabilise", "temporal smoothing"],
            inputs=[
                make(io.Image.Input, "images", tooltip="The video's frames, at least 3, in their order."),
                make(
                    FlowModelType.Input,
                    "flow_model",
                    tooltip="Measures the motion. lucas_kanade_coarse is fast and sees large motion.",
                ),
                slider(
                    "strength",
                    1.0,
                    0.0,
                    1.0,
                    0.05,
                    "Share of the way to the steadied frames. 0 is off: exactly the given frames.",
                    round=0.001,
                ),
            ],
            outputs=[
                make(io.Image.Output, display_name="images", tooltip="The steadied frames."),
                make(
                    io.String.Output,
                    display_name="summary",
                    tooltip="How much was changed, and what it cost in sharpness.",
                ),
            ],
        )

    @classmethod
    def execute(cls, images: Any, flow_model: ManagedModel, strength: float) -> io.NodeOutput:
        if len(images) < 3:
            raise ValueError(f"Steady: images has {len(images)} frame(s), but motion needs at least 3.")
        if not images.isfinite().all():  # no reason to end a render of which other videos are right
            return io.NodeOutput(images, "off: images hold NaN or infinity, as what made them failed; left as they are")
        flow = flow_model.load()
        flow.check_size(*images.shape[1:3])
        if strength == 0:
            return io.NodeOutput(images, "off: the frames as they were")
        frames, note = images[..., :3].movedim(-1, 1), ""
        options = {"strength": strength, "device": comfy.model_management.get_torch_device(), "check": check_interrupt}
        try:
            steadied = steady_parts(frames, flow, **options)
        except Exception as error:
            if not out_of_memory(error):
                raise
            steadied = None
        if steadied is None:  # only here, where the failed attempt's tensors are no longer held by its traceback
            comfy.model_management.soft_empty_cache()
            steadied, note = steady_parts(frames, flow, part=1, batch=1, **options), " Memory was short: one by one."
        return io.NodeOutput(steadied.movedim(1, -1), _summary(frames, steadied) + note)


def _summary(before: Any, after: Any) -> str:
    change = 100 * float((after - before.clamp(0, 1)).abs().mean())
    sharp = [float(sharpnesses(as_video(video)).mean()) for video in (before, after)]
    softer = 100 * (sharp[1] / max(sharp[0], 1e-9) - 1)
    return f"changed by {change:.2f} % on average; sharpness {sharp[0]:.1f} -> {sharp[1]:.1f} ({softer:+.0f} %)."


def steady_parts(
    frames: Tensor,
    flow: FlowModel,
    *,
    strength: float = 1.0,
    part: int = 32,
    device: torch.device | None = None,
    batch: int = 8,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """`steady` for videos of any length, the same to the last digits: some frames at a time, with their neighbours.

    Args:
        frames: (F, 3, H, W) in [0, 1], anywhere. The result is there, too, and within [0, 1].
        part: frames at a time on `device`, where `flow` is.
        strength, batch, check: see `steady`.
    """
    results, around = [], margin(flow)
    for first in range(0, len(frames), part):
        before, after = max(0, first - around), min(len(frames), first + part + around)
        piece = frames[before:after].to(device or frames.device)
        piece = steady(piece, flow, strength=strength, batch=batch, check=check).to(frames.device)
        results.append(piece[first - before : first - before + part].clamp(0, 1))
    return torch.cat(results)
