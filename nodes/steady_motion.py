"""Steady Motion."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..motionprompt_core.flow import available_flow_models, load_flow_model
from .host.checks import check_number, encodes
from .host.correction_report import EstimateReport
from .host.flows import managed_flow
from .host.models import ManagedModel
from .host.schema import FlowModelType, OpticalFlowType, make, schema, slider
from .host.status import node_view
from .host.steadying import EstimatePatch
from .host.tiny_autoencoder import load_tiny_autoencoder, tiny_autoencoder_file


class SteadyMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptSteadyMotion",
            display_name="Steady Motion",
            description="Between the model and its sampler: takes shake and flicker out of the video while it is "
            "sampled, along its own motion, so that the model draws the detail anew. Works with any video model, "
            "sampler and guider, sound and start images included, quantised or not; needs no prompt of its own. It "
            "finds the steps to correct by itself and says on the node which they were and why not the others. For two "
            "samplers in a row (Wan 2.2) put one on each model.",
            search_aliases=["motionprompt", "flicker", "jitter", "deflicker", "temporal consistency", "stabilise"],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # each says on itself what became of its sampler, so no other stands for it
            inputs=[
                make(io.Model.Input, "model", tooltip="The video model, after LoRAs and shift."),
                make(
                    io.Vae.Input,
                    "vae",
                    tooltip="The model's VAE. If its tiny autoencoder (lighttaew2_1, taeltx_2, taeh3, taehv, "
                    "lighttaehy1_5) lies in models/vae_approx, that is used in its place: a fraction of the time and "
                    "memory.",
                ),
                slider(
                    "strength",
                    1.0,
                    0.0,
                    1.0,
                    0.05,
                    "Share of the way to the steady video. 0 is off: exactly the plain video. Lower it if motion that "
                    "should be quick comes out too calm.",
                    round=0.001,
                ),
                make(
                    io.MultiType.Input,
                    "flow_model",
                    [FlowModelType, OpticalFlowType],
                    optional=True,
                    tooltip="Measures the motion, if another model than the built-in one should: from Load Optical "
                    "Flow Model, this pack's or ComfyUI's.",
                ),
            ],
            outputs=[
                make(
                    io.Model.Output,
                    display_name="model",
                    tooltip="For any sampler node. When it is sampled, this node says what was corrected.",
                )
            ],
        )

    @classmethod
    def execute(cls, model: Any, vae: Any, strength: float, flow_model: Any = None) -> io.NodeOutput:
        check_number("Steady Motion", "strength", strength, 0, 1)
        view = node_view(cls)
        if strength == 0:
            lines = ["off: the video is exactly the plain one."]
        else:
            tiny = tiny_autoencoder_file(model.model)
            used = "the VAE that is connected"
            if tiny is not None and encodes(found := load_tiny_autoencoder(tiny)):
                vae, used = found, f"models/vae_approx/{tiny}"
            lines = [f"Waits for a sampler to use this model. Decodes with {used}."]
        flow = ManagedModel(load_flow_model(available_flow_models()[0])) if flow_model is None else flow_model
        say = None if view is None else view.show
        patch = EstimatePatch(strength, vae, managed_flow(flow), EstimateReport(), say=say)
        if say is not None:
            say("\n".join(lines))
        return io.NodeOutput(patch.attach(model))
