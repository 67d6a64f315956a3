"""The guided sampler on tiny random models of the SD1.5 kind, driven node by node as ComfyUI's executor does."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tests.comfyui.guidance import shared_out
from tests.comfyui.inprocess import InProcessComfy

TEXT = "a (red:1.2) ball rolling"
# Two guided steps of four, one iteration each: the least that shows everything.
GUIDED = {"preset": "paper", "start": 0.0, "stop": 0.5, "iterations": 1}


class Tiny:
    """Models, prompts and short ways to sample.

    Attributes:
        comfy: ComfyUI in this process. model, clip, vae, flow, discriminator: tiny and random.
        learnable, plain, negative: conditioning of the prompt with and without learnable tokens, and of another one.
    """

    def __init__(self, comfy: InProcessComfy):
        self.comfy = comfy
        self.model, self.clip, self.vae = comfy.run("TinyVideoModel", dtype="fp32", seed=0)
        (self.flow,) = comfy.run("GradientFlow")
        self.discriminator = self.make_discriminator()
        self.learnable = self.prompt()
        self.plain = self.encode(TEXT)
        self.negative = self.encode("blurry")

    def make_discriminator(self, flows: int = 1) -> Any:
        core = self.comfy.module("motionprompt_core.discriminator.model")
        config = core.DiscriminatorConfig(flow_model="gradient", img_size=64, depth=2, embed_dim=32, flows=flows)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.comfy.module("nodes.host.models").ManagedModel(core.FlowDiscriminator(config))

    def prompt(self, text: str = TEXT, clip: Any = None, **options: Any) -> Any:
        """MotionPrompt Conditioning."""
        options = {"token_count": 2, "init_words": "authentic", "placement": "end", **options}
        return self.comfy.run("MotionPromptConditioning", clip=clip or self.clip, text=text, **options)[0]

    def encode(self, text: str, clip: Any = None) -> Any:
        """CLIP Text Encode."""
        return self.comfy.run("CLIPTextEncode", clip=clip or self.clip, text=text)[0]

    def latent(self, frames: int = 3, size: int = 64) -> dict[str, Any]:
        return self.comfy.run("EmptyLatentImage", width=size, height=size, batch_size=frames)[0]

    def _sampling(self, options: dict[str, Any]) -> dict[str, Any]:
        defaults = {"seed": 3, "steps": 4, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
        return {"model": self.model, "negative": self.negative, "latent_image": self.latent(), **defaults, **options}

    def stock(self, **options: Any) -> torch.Tensor:
        """Latents of ComfyUI's KSampler; of the plain prompt unless told otherwise."""
        options = {"positive": self.plain, **options}
        return self.comfy.run("KSampler", **self._sampling(options))[0]["samples"]

    def _guidance(self, options: dict[str, Any]) -> dict[str, Any]:
        """Inputs of a sampling node, with what belongs on MotionPrompt Settings in its `settings`."""
        models = {"vae": self.vae, "flow_model": self.flow, "discriminator": self.discriminator}
        options = {**models, **GUIDED, **options}
        rest = {name: options.pop(name) for name in self.comfy.module("nodes.options").REST if name in options}
        (settings,) = self.comfy.run("MotionPromptSettings", **shared_out(rest)[1])
        return {"settings": settings, **options}

    def guided(self, **options: Any) -> tuple[torch.Tensor, Any]:
        """Latents and report of MotionPrompt KSampler."""
        options = {"positive": self.learnable, **options}
        latent, report = self.comfy.run("MotionPromptKSampler", **self._sampling(self._guidance(options)))
        return latent["samples"], report

    def applied(self, model: Any = None, **options: Any) -> tuple[Any, Any]:
        """MODEL and report of Apply MotionPrompt."""
        return self.comfy.run("MotionPromptApply", model=model or self.model, **self._guidance(options))

    def sampled_by(self, guider: Any, sigmas: Any, sampler: str = "euler") -> Any:
        """Latents of SamplerCustomAdvanced with a GUIDER."""
        run = self.comfy.run
        (noise,), (chosen,) = run("RandomNoise", noise_seed=3), run("KSamplerSelect", sampler_name=sampler)
        inputs = {"noise": noise, "sampler": chosen, "latent_image": self.latent()}
        return run("SamplerCustomAdvanced", guider=guider, sigmas=sigmas, **inputs)[0]

    def gradients(self, **options: Any) -> list[torch.Tensor]:
        """The gradients for the tokens that Adam was given, in order, on the way of a guided run."""
        seen: list[torch.Tensor] = []

        def watch(adam: torch.optim.Optimizer, *_: Any) -> None:
            seen.extend(row.grad.clone() for group in adam.param_groups for row in group["params"])

        hook = register_optimizer_step_pre_hook(watch)
        try:
            self.guided(**options)
        finally:
            hook.remove()
        return seen

    def checkpointing_error(self, **options: Any) -> float:
        """Relative difference of the gradient with and without checkpointing; its order of sums may differ."""
        (kept,), (again,) = (self.gradients(stop=0.25, checkpointing=on, **options) for on in ("off", "on"))
        return float((kept - again).norm() / kept.norm())

    def slopes(
        self,
        model: Any = None,
        settings: dict[str, Any] | None = None,
        epsilon: float = 3e-3,
        discriminator: Any = None,
        **options: Any,
    ) -> list[dict[str, float]]:
        """Slopes of the loss along its gradient, by autograd and by differences, at the first of four steps."""
        settings = {"start": 0.0, "stop": 0.25, "lambda_tv": 0.0, **(settings or {})}
        probed, results = self.comfy.run(
            "GradientProbe",
            model=model or self.model,
            vae=self.vae,
            flow_model=self.flow,
            discriminator=discriminator or self.discriminator,
            settings=json.dumps(settings),
            epsilon=epsilon,
        )
        self.stock(model=probed, **{"positive": self.learnable, **options})
        return results

    def animatediff(self, version: str, model: Any = None, context_length: int | None = None, **options: Any) -> Any:
        """MODEL through AnimateDiff-Evolved's Gen2 nodes."""
        (motion,) = self.comfy.run("TinyMotionModel", version=version)
        (motions,) = self.comfy.run("ADE_ApplyAnimateDiffModelSimple", motion_model=motion)
        if context_length is not None:
            (options["context_options"],) = self.comfy.run(
                "ADE_StandardUniformContextOptions", context_length=context_length, context_stride=1, context_overlap=2
            )
        return self.comfy.run(
            "ADE_UseEvolvedSampling",
            model=model or self.model,
            beta_schedule="autoselect",
            m_models=motions,
            **options,
        )[0]
