"""Flow Dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..motionprompt_core.discriminator.cache import STILL, FlowClips, cached_flows, check_distinct
from ..motionprompt_core.discriminator.clips import ClipSettings, Frames, check_apart, find_clips
from ..motionprompt_core.discriminator.model import MOST_FLOWS
from .host import training
from .host.flow_dataset import FlowDataset, captured_flows, joined
from .host.models import ManagedModel
from .host.schema import DatasetType, FlowModelType, make, schema
from .host.status import status_line

_D = ClipSettings()


class FlowDatasetNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptFlowDataset",
            display_name="Flow Dataset",
            description="Measures the motion of real and of generated clips, for Train Flow Discriminator. Each side "
            "comes from a folder, from images in the graph, or both. What has been measured is kept and found again.",
            search_aliases=["motionprompt", "train discriminator", "optical flow dataset"],
            is_input_list=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                make(
                    FlowModelType.Input,
                    "flow_model",
                    tooltip="Measures the motion. The discriminator is then for this flow model only: use the same one "
                    "for guidance.",
                ),
                make(
                    io.String.Input,
                    "real",
                    default="real_clips",
                    tooltip="Folder with real clips, in ComfyUI's input or output folder: videos, animated images, or "
                    "folders of frames. Leave it empty to use real_images alone.",
                ),
                make(
                    io.String.Input,
                    "generated",
                    default="",
                    tooltip="Folder with clips that your video model made, the same way. Leave it empty to use "
                    "generated_images alone.",
                ),
                make(
                    io.Image.Input,
                    "real_images",
                    optional=True,
                    tooltip="A real clip as a batch of frames, or a list of such clips; taken to be at fps already.",
                ),
                make(
                    io.Image.Input,
                    "generated_images",
                    optional=True,
                    tooltip="A clip that your video model made, from VAE Decode, or a list of them (see Clip Seeds); "
                    "taken to be at fps already.",
                ),
                _number(
                    "fps",
                    _D.fps,
                    "Frames a second that all clips are thinned out to, so that the frame rate "
                    "tells nothing. Set it to your video model's, 8 for AnimateDiff.",
                    0.1,
                    240.0,
                ),
                _number(
                    "folder_fps", _D.folder_fps, "Frames a second of folders of frames, which do not say.", 0.1, 1000.0
                ),
                _number(
                    "max_frames", _D.max_frames, "Frames of each clip that are looked at, after thinning.", 2, 1000
                ),
                _number(
                    "size",
                    _D.size,
                    "Clips are scaled and cut to a square of this many pixels. Smaller is faster, "
                    "and blind to fine flicker.",
                    32,
                    1024,
                ),
                _number(
                    "pairs",
                    _D.pairs,
                    "Pairs of frames looked at in each clip. More take longer to measure and teach more.",
                    1,
                    1000,
                ),
                make(
                    io.String.Input,
                    "gaps",
                    default=", ".join(map(str, _D.gaps)),
                    optional=True,
                    tooltip="Distances between the frames of a pair, separated by commas. With the sampler's max_gap "
                    "1, use 1 alone.",
                ),
                make(
                    io.String.Input,
                    "captured",
                    default="",
                    optional=True,
                    tooltip="Name that Capture Flow Estimates kept estimates under: they join the generated side, so "
                    "that the discriminator knows the blurry estimates that it will judge. Empty for none.",
                ),
                _number(
                    "flows",
                    _D.flows,
                    "Flows in a row that are judged together. 2 also shows how motion changes "
                    "from one frame to the next, which jitter and tearing do all the time; then leave captured "
                    "empty.",
                    1,
                    MOST_FLOWS,
                ),
            ],
            outputs=[
                make(DatasetType.Output, display_name="dataset", tooltip="For Train Flow Discriminator."),
                make(io.String.Output, display_name="info", tooltip="How many clips, and which were skipped and why."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, real: Any = None, generated: Any = None, captured: Any = None, **_: Any) -> Any:
        places = [_folder(name, side) for name, side in ((real, "real"), (generated, "generated"))]
        places += [training.capture_folder(_only(captured))] if _only(captured) else []
        files = [file for place in places if place is not None for file in sorted(place.rglob("*")) if file.is_file()]
        return [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]

    @classmethod
    def execute(cls, flow_model: list[ManagedModel], **given: list[Any]) -> io.NodeOutput:
        flow = flow_model[0]
        values = {name: _only(value) for name, value in given.items()}
        settings = clip_settings(values)
        sides = {side: _sources(given, values, side) for side in ("real", "generated")}  # both, before any long work
        check_apart(sides["real"], sides["generated"])
        captured = FlowClips()
        if values.get("captured") and settings.flows > 1:
            raise ValueError(
                f"Flow Dataset: flows is {settings.flows}, but captured estimates are single flows. Set flows to 1, or "
                "leave captured empty."
            )
        if values.get("captured"):
            folder = training.capture_folder(values["captured"])
            captured = captured_flows(folder, flow.module.name, settings.grid)
        for side, clips in sides.items():
            if not clips and not (side == "generated" and len(captured)):
                raise ValueError(
                    f"Flow Dataset: there are no {side} clips. Name a folder, or connect {side}_images: both sides are "
                    "needed."
                )
        status = status_line(cls)
        progress = training.Progress(sum(map(len, sides.values())), status)
        module, done, found = flow.load(), 0, {}
        for side, clips in sides.items():

            def show(number: int, of: int, clip: Any, before: int = done, side: str = side) -> None:
                progress.show(before + number, f"{side} clip {number} of {of}: {clip.name}")

            found[side] = (
                FlowClips()
                if not clips
                else cached_flows(
                    clips,
                    training.flow_cache(),
                    module,
                    settings,
                    device=flow.patcher.load_device,
                    min_motion=STILL,
                    on_clip=show,
                )
            )
            done += len(clips)
        check_distinct(found["real"], found["generated"])
        generated = joined([found["generated"], captured])
        dataset = FlowDataset(found["real"], generated, module.name, settings, len(captured))
        text = dataset.summary()
        return io.NodeOutput(dataset, text, ui={"text": (text,)})


def clip_settings(values: dict[str, Any]) -> ClipSettings:
    """Settings from the node's widgets."""
    text = values.get("gaps") or ", ".join(map(str, _D.gaps))
    try:
        gaps = tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(f"Flow Dataset: gaps are {text!r}, expected whole numbers such as 1, 2, 4.") from error
    names = ("fps", "folder_fps", "max_frames", "size", "pairs", "flows")
    known = {name: values[name] for name in names if name in values}
    return ClipSettings(**known, gaps=gaps)


def _number(name: str, default: float, tooltip: str, low: float, high: float) -> Any:
    kind = io.Int.Input if isinstance(default, int) else io.Float.Input
    return make(kind, name, default=default, min=low, max=high, step=1, tooltip=tooltip, optional=True)


def _only(value: Any) -> Any:
    """An input of a node that takes lists, where a list makes no sense."""
    value = value[0] if isinstance(value, list) and value else value
    return value.strip() if isinstance(value, str) else value


def _folder(name: Any, side: str) -> Path | None:
    text = _only(name)
    return training.readable_folder(text, f"Flow Dataset, {side} clips") if text else None


def _sources(given: dict[str, list[Any]], values: dict[str, Any], side: str) -> list[Path | Frames]:
    """The clips of one side: files of its folder, then images."""
    folder = _folder(values.get(side), side)
    clips: list[Path | Frames] = [] if folder is None else list(find_clips(folder))
    batches = [batch for batch in given.get(f"{side}_images") or [] if batch is not None]
    clips += [Frames(f"{side} images {i + 1}", batch[..., :3].movedim(-1, 1)) for i, batch in enumerate(batches)]
    return clips
