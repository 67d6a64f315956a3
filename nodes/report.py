"""MotionPrompt Report."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .host.figure import drawn
from .host.plots import draw_report
from .host.report import GuidanceReport
from .host.schema import ReportType, make, schema
from .host.status import node_view, video_identity

NOTHING_SAMPLED = (
    "Nothing has been sampled: denoise is 0, or (with Apply MotionPrompt) the report was read before the sampler ran. "
    "Connect the sampler's latent to this node, so that it waits for it."
)


class MotionPromptReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptReport",
            display_name="MotionPrompt Report",
            description="Shows what the guidance did: the losses at each iteration, how far the tokens moved, and the "
            "motion of a frame pair before and after.",
            search_aliases=["motionprompt", "loss curve"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                make(ReportType.Input, "report", tooltip="From MotionPrompt KSampler or Apply MotionPrompt."),
                make(
                    io.Latent.Input,
                    "latent",
                    optional=True,
                    tooltip="With Apply MotionPrompt: connect the sampler's latent, so that the report is read after "
                    "sampling. Where one model is sampled several times, it chooses that sampling's report.",
                ),
            ],
            outputs=[
                make(io.Image.Output, display_name="image", tooltip="The curves and the flow as a picture."),
                make(io.String.Output, display_name="json", tooltip="Everything in numbers, as JSON."),
                make(
                    io.String.Output,
                    display_name="summary",
                    tooltip="A few readable lines: the steps that were guided, loss, phi, drift and time, before and "
                    "after. The picture shows them too, and the most important ones stand on the node.",
                ),
            ],
        )

    @classmethod
    def execute(cls, report: GuidanceReport, latent: Any = None) -> io.NodeOutput:
        if latent is not None:
            report = report.of(video_identity(latent["samples"]))
        if report.state == "waiting":  # refused here, it would take the whole queued run with it
            report = GuidanceReport(state="off", notes=[NOTHING_SAMPLED])
        summary = report.summary()
        image = drawn(lambda: draw_report(report), summary)[None]
        view = node_view(cls)
        if view is not None:
            view.show(report.brief())
        preview = ui.PreviewImage(image, cls=cls).as_dict()
        return io.NodeOutput(image, report.to_json(), summary, ui={**preview, "text": (summary,)})
