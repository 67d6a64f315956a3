"""ComfyUI's own templates on tiny random models: everything up to the samplers is run, loaders and encoders replaced.

The templates come in the wheel comfyui-workflow-templates-json, of which nothing is kept here. It is found where it is
installed, or MOTIONPROMPT_TEMPLATES names the wheel or a folder of its JSON files.
"""

from __future__ import annotations

import os
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from scripts.put_steady_motion import INPUTS, OUTPUTS, graphs_of, links_of
from scripts.workflow import _widget_values
from tests.comfyui.tiny_hosts import TinyHost

PACKAGE = "comfyui_workflow_templates_json"
# The eight most used for video that run on one's own machine (index.json's "usage", 2026-10), and their models.
EIGHT = {
    "video_minimax_h3_i2v": "minimax",
    "video_ltx2_3_i2v": "ltx2",
    "video_wan2_2_14B_i2v": "wan22_i2v",
    "video_minimax_h3_r2v": "minimax",
    "video_ltx2_5_i2v": "ltx2",
    "video_minimax_h3_t2v": "minimax",
    "video_fastvideo_fasth3_i2v": "minimax",
    "video_wan_animate2": "animate2",
}
SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")
# What is run as it is, with the template's own settings.
RUN = (
    *SAMPLERS,
    *("BasicScheduler", "ManualSigmas", "KSamplerSelect", "RandomNoise"),
    *("BasicGuider", "CFGGuider", "LTXVDualCFGGuider", "MotionPromptSteadyMotion"),
    *("ModelSamplingSD3", "MiniMaxH3SigmaShift", "ContextWindowsManual"),
    *("WanImageToVideo", "WanAnimate2ToVideo", "LTXVConditioning", "LTXVImgToVideoInplace"),
    *("EmptyLTXVLatentVideo", "LTXVConcatAVLatent", "LTXVSeparateAVLatent", "LTXVCropGuides"),
)
# What hands its first input on: adapters, caches and attention of models that are tiny here.
HANDED_ON = {
    "LoraLoaderModelOnly": "model",
    "LoraLoader": "model",
    "ModelAttentionBackend": "model",
    "BlockSparseAttention": "model",
    "WanAnimate2Cache": "model",
    "Reroute": "",
}
SMALL = {"width": 64, "height": 64}


def templates() -> dict[str, str]:
    """JSON texts of the eight by their names; those that are there."""
    named = os.environ.get("MOTIONPROMPT_TEMPLATES")
    spec = find_spec(PACKAGE)
    place = Path(named) if named else Path(spec.origin).parent if spec is not None and spec.origin else None
    if place is None or not place.exists():
        return {}
    if place.is_file():
        with zipfile.ZipFile(place) as wheel:
            found = {Path(name).stem: name for name in wheel.namelist() if name.endswith(".json")}
            return {name: wheel.read(found[name]).decode("utf-8") for name in EIGHT if name in found}
    found = {path.stem: path for path in place.rglob("*.json")}
    return {name: found[name].read_text(encoding="utf-8") for name in EIGHT if name in found}


class TinyTemplate:
    """A workflow with subgraphs, evaluated node by node on a tiny host.

    Args:
        text: the JSON. host: its models.

    Attributes:
        steadied: what each Steady Motion node showed, by its id.
    """

    def __init__(self, workflow: dict[str, Any], host: TinyHost, vae: Any):
        self.host, self.vae = host, vae
        self.graphs = {graph.get("id"): graph for graph in graphs_of(workflow)[1:]}
        self.places: dict[tuple[int, ...], tuple[dict[str, Any], dict[str, Any]]] = {}
        self._open((), workflow)
        self.made: dict[tuple[int, ...], tuple[Any, ...]] = {}
        self.experts = 0

    def _open(self, path: tuple[int, ...], graph: dict[str, Any]) -> None:
        for node in graph["nodes"]:
            self.places[(*path, node["id"])] = (node, graph)
            if node["type"] in self.graphs:
                self._open((*path, node["id"]), self.graphs[node["type"]])

    def run(self) -> list[tuple[str, Any]]:
        """Every sampler's class and its latent, in the order in which they depend on each other."""
        found = [path for path, (node, _) in self.places.items() if node["type"] in SAMPLERS]
        return [(self.places[path][0]["type"], self._outputs(path)[0]) for path in found]

    def _outputs(self, path: tuple[int, ...]) -> tuple[Any, ...]:
        if path not in self.made:
            self.made[path] = self._make(path)
        return self.made[path]

    def _input(self, path: tuple[int, ...], name: str) -> Any:
        """What comes in at a node's input; None if nothing does."""
        node, graph = self.places[path]
        slots = [slot for slot in node.get("inputs") or [] if slot["name"] == name or not name]
        return self._follow(path[:-1], graph, slots[0].get("link")) if slots else None

    def _follow(self, within: tuple[int, ...], graph: dict[str, Any], link_id: int | None) -> Any:
        link = next((link for link in links_of(graph) if link.id == link_id), None)
        if link is None:
            return None
        if link.origin == INPUTS:  # through the border of a subgraph
            outer, outer_graph = self.places[within]
            name = graph["inputs"][link.origin_slot]["name"]
            slot = next((slot for slot in outer.get("inputs") or [] if slot["name"] == name), {})
            return self._follow(within[:-1], outer_graph, slot.get("link"))
        node, _ = self.places[(*within, link.origin)]
        if node["type"] in self.graphs:
            inner = self.graphs[node["type"]]
            ends = [one for one in links_of(inner) if (one.target, one.target_slot) == (OUTPUTS, link.origin_slot)]
            return self._follow((*within, link.origin), inner, ends[0].id) if ends else None
        outputs = self._outputs((*within, link.origin))
        return outputs[link.origin_slot] if link.origin_slot < len(outputs) else None

    def _make(self, path: tuple[int, ...]) -> tuple[Any, ...]:
        node, _ = self.places[path]
        kind = node["type"]
        if kind in HANDED_ON:
            return (self._input(path, HANDED_ON[kind]), None)
        if kind == "ComfySwitchNode":
            return (self._input(path, "on_true" if (node.get("widgets_values") or [False])[0] else "on_false"),)
        if kind in ("PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean"):
            return ((node.get("widgets_values") or [None])[0],)
        if kind in RUN:
            return self._run(path, node)
        return getattr(self, f"_{kind}", lambda _: ())(path)

    def _run(self, path: tuple[int, ...], node: dict[str, Any]) -> tuple[Any, ...]:
        comfy = self.host.comfy
        types = comfy.node(node["type"]).INPUT_TYPES()
        given = _widget_values(node, {"input": types})
        for name in (*types.get("required", {}), *types.get("optional", {})):
            value = self._input(path, name)
            given = {**given, name: value} if value is not None else given
        given = {name: value for name, value in given.items() if value is not None}
        frames = 9 if "Wan" in node["type"] else 17
        given |= {name: value for name, value in {**SMALL, "length": frames}.items() if name in given}
        return comfy.run(node["type"], **given)

    def _UNETLoader(self, _: Any) -> tuple[Any, ...]:
        self.experts += 1
        return (self.host.model if self.experts == 1 else self.host.expert(),)

    def _CheckpointLoaderSimple(self, _: Any) -> tuple[Any, ...]:
        return (self.host.model, None, self.vae)

    def _VAELoader(self, _: Any) -> tuple[Any, ...]:
        return (self.vae,)

    def _CLIPTextEncode(self, _: Any) -> tuple[Any, ...]:
        return ([[self.host.positive[0][0], dict(self.host.positive[0][1])]],)

    def _image(self, _: Any) -> tuple[Any, ...]:
        return (torch.rand(9, 64, 64, 3, generator=torch.Generator().manual_seed(1)),)

    _LTXVPreprocess = _LoadImage = _ResizeImageMaskNode = _ImageFromBatch = _image

    def _LTXVEmptyLatentAudio(self, _: Any) -> tuple[Any, ...]:
        return ({"samples": torch.zeros(1, 8, 5, 16), "type": "audio"},)

    def _LTXVLatentUpsampler(self, path: Any) -> tuple[Any, ...]:
        latent = self._input(path, "samples")
        return ({"samples": F.interpolate(latent["samples"], scale_factor=(1, 2, 2))},)

    def _MiniMaxH3ImageToVideo(self, path: Any) -> tuple[Any, ...]:
        latent = self.host.latent(size=64)
        extras = dict(self.host.positive[0][1])
        if self._input(path, "first_frame") is not None:
            extras["minimax_keyframes"] = [{"resolved_frame_index": 0, "latent": torch.zeros(1, 24, 1, 4, 4)}]
        return ([[self.host.positive[0][0], extras]], latent)

    _MiniMaxH3ReferenceToVideo = _MiniMaxH3ImageToVideo
