"""MotionPrompt Self-Check."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..motionprompt_core.guidance.presets import DEFAULT_PRESET
from .host import ksampler
from .host.schema import make, schema
from .host.self_check import self_check
from .host.status import node_view
from .options import knob_input, model_inputs, sampling_inputs, settings_from


class MotionPromptSelfCheck(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptSelfCheck",
            display_name="MotionPrompt Self-Check",
            description="Shows whether MotionPrompt is right on this machine, with your own model, prompt and VAE: it "
            "compares the gradient with differences at one guided step, part by part, and looks whether strength 0 "
            "changes nothing. Takes about as long as half a plain video. The block that it shows is for bug reports.",
            search_aliases=["motionprompt", "diagnose", "bug report", "gradient check"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                make(
                    io.Model.Input,
                    "model",
                    tooltip="The video model, as it goes into MotionPrompt KSampler or Apply MotionPrompt.",
                ),
                *sampling_inputs(
                    "The seed of the noise.",
                    "Denoising steps of your video; no more of them are made than up to the first guided one.",
                    "Classifier-free guidance, as for your video.",
                ),
                make(io.Conditioning.Input, "positive", tooltip="From MotionPrompt Conditioning."),
                make(io.Conditioning.Input, "negative", tooltip="What should not be in the video."),
                make(
                    io.Latent.Input,
                    "latent_image",
                    tooltip="The frames, as many and as large as of your video: memory is a part of the check.",
                ),
                *model_inputs(),
                knob_input("checkpointing"),
            ],
            outputs=[
                make(
                    io.String.Output,
                    display_name="report",
                    tooltip="The block for a bug report; the node shows it, too. No paths and no names of files.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Any,
        negative: Any,
        latent_image: Any,
        vae: Any,
        flow_model: Any,
        discriminator: Any = None,
        settings: Any = None,
        checkpointing: str = "auto",
    ) -> io.NodeOutput:
        def sample(model: Any, positive: Any, number: int) -> torch.Tensor:
            return ksampler.sample(
                model,
                seed,
                steps,
                cfg,
                sampler_name,
                scheduler,
                positive,
                negative,
                latent_image,
                denoise=1.0,
                last_step=number,
            )["samples"]

        chosen = settings_from(DEFAULT_PRESET, settings, {"checkpointing": checkpointing})
        found = self_check(model, positive, vae, flow_model, discriminator, chosen, steps, sample)
        found.facts.append(f"{sampler_name}, {scheduler}, {steps} steps")
        text = found.text()
        view = node_view(cls)
        if view is not None:
            view.show(f"MotionPrompt Self-Check: {found.verdict}")
        return io.NodeOutput(text, ui={"text": (text,)})
