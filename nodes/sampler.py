"""MotionPrompt KSampler, Apply MotionPrompt, MotionPrompt Settings."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host import ksampler
from .host.sampling import MotionPromptPatch
from .host.schema import ReportType, SettingsType, make, schema
from .options import (
    AS_PRESET,
    check_settings,
    guidance_inputs,
    guidance_of,
    model_inputs,
    moved,
    refusal,
    sampling_inputs,
    settings_inputs,
)


class MotionPromptKSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptKSampler",
            display_name="MotionPrompt KSampler",
            description="KSampler for video models that improves the motion while it samples: at the early steps it "
            "looks at the motion between frames and adjusts the learnable tokens of the prompt until it looks real.",
            search_aliases=["motionprompt", "ksampler", "temporal consistency", "flicker"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                make(io.Model.Input, "model", tooltip="The video model, for example from AnimateDiff-Evolved."),
                *sampling_inputs(
                    "The seed of the noise and of the frame pairs: the same seed makes the same video.",
                    "Denoising steps.",
                    "Classifier-free guidance: higher follows the prompt more closely.",
                    control_after_generate=True,
                ),
                make(io.Conditioning.Input, "positive", tooltip="From MotionPrompt Conditioning."),
                make(io.Conditioning.Input, "negative", tooltip="What should not be in the video."),
                make(
                    io.Latent.Input,
                    "latent_image",
                    tooltip="The frames to denoise, at least two: a batch, or an empty latent video for Wan and "
                    "LTX-Video.",
                ),
                make(
                    io.Float.Input,
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Less than 1 keeps the structure of the given frames.",
                ),
                *model_inputs(),
                *guidance_inputs(),
            ],
            outputs=[
                make(io.Latent.Output, display_name="latent", tooltip="The denoised frames."),
                make(
                    ReportType.Output, display_name="report", tooltip="What the guidance did, for MotionPrompt Report."
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, preset: Any, start: Any = AS_PRESET, stop: Any = AS_PRESET, preserve_detail: Any = AS_PRESET
    ) -> str | bool:
        """Before the run, a window that stops before it starts; and numbers that the menus do not offer pass."""
        return refusal(preset, start=start, stop=stop, preserve_detail=preserve_detail)

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
        denoise: float,
        vae: Any,
        flow_model: Any,
        preset: str,
        discriminator: Any = None,
        settings: Any = None,
        **sliders: Any,
    ) -> io.NodeOutput:
        guidance = guidance_of(cls, vae, flow_model, discriminator, preset, settings, sliders)
        model, report = MotionPromptPatch(guidance).attach(model), guidance.report
        latent = ksampler.sample(
            model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise
        )
        if report.state == "waiting":  # ComfyUI hands the latent back without sampling
            report.state = "off"
            report.note("denoise is 0: the latent is as it came, and there was nothing to guide.")
        return io.NodeOutput(latent, report)


class ApplyMotionPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptApply",
            display_name="Apply MotionPrompt",
            description="The same as MotionPrompt KSampler for any sampler node: the model that comes out is guided "
            "wherever it is sampled. The window counts the steps of that sampler node.",
            search_aliases=["motionprompt", "model patch", "temporal consistency"],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # each has a report and a view of its own sampler, so no other stands for it
            inputs=[
                make(io.Model.Input, "model", tooltip="The video model; before or after AnimateDiff-Evolved's nodes."),
                *model_inputs(),
                *guidance_inputs(),
            ],
            outputs=[
                make(
                    io.Model.Output,
                    display_name="model",
                    tooltip="The guided model, for any sampler node. Its positive "
                    "conditioning must come from MotionPrompt Conditioning.",
                ),
                make(
                    ReportType.Output,
                    display_name="report",
                    tooltip="Filled when the model is sampled: connect it to "
                    "MotionPrompt Report together with the sampler's latent.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, preset: Any, start: Any = AS_PRESET, stop: Any = AS_PRESET, preserve_detail: Any = AS_PRESET
    ) -> str | bool:
        """Before the run, a window that stops before it starts; and numbers that the menus do not offer pass."""
        return refusal(preset, start=start, stop=stop, preserve_detail=preserve_detail)

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        flow_model: Any,
        preset: str,
        discriminator: Any = None,
        settings: Any = None,
        **sliders: Any,
    ) -> io.NodeOutput:
        guidance = guidance_of(cls, vae, flow_model, discriminator, preset, settings, sliders)
        return io.NodeOutput(MotionPromptPatch(guidance).attach(model), guidance.report)


class MotionPromptSettings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptSettings",
            display_name="MotionPrompt Settings",
            description="The settings of the guidance that are not on MotionPrompt KSampler and Apply MotionPrompt. "
            "What is moved here counts in place of the preset's value; the rest stays as the preset has it.",
            search_aliases=["motionprompt", "advanced", "options"],
            inputs=settings_inputs(),
            outputs=[
                make(
                    SettingsType.Output,
                    display_name="settings",
                    tooltip="For the input settings of MotionPrompt KSampler or Apply MotionPrompt.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, **widgets: Any) -> bool:
        """ComfyUI would refuse numbers that the menus do not offer; `execute`, which comes at once, checks all."""
        return True

    @classmethod
    def execute(cls, **widgets: Any) -> io.NodeOutput:
        values = moved(widgets)
        check_settings(values)
        return io.NodeOutput(values)
