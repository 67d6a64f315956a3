"""Sampling with the tiny random models of today's hosts, node by node as ComfyUI's executor does."""

from __future__ import annotations

import sys
from typing import Any

import torch

from tests.comfyui.inprocess import InProcessComfy
from tests.comfyui.tiny import Tiny


class TinyHost(Tiny):
    """One of `HOSTS` of tests/comfyui/packs/tiny_models/hosts.py, and ways to have it sampled.

    Attributes:
        model: the (first) expert. positive, negative: prompts. vae: a tiny video autoencoder.
        lines: what the node showed last.
    """

    def __init__(self, comfy: InProcessComfy, host: str, flow: Any):
        self.comfy, self.host, self.flow = comfy, host, flow
        self.hosts = sys.modules[comfy.node("TinyHostModel").__module__]  # packs/tiny_models/hosts.py
        self.model, self.positive, self.vae = comfy.run("TinyHostModel", host=host, seed=0)
        with torch.inference_mode():
            self.negative = [[0.5 * self.positive[0][0], dict(self.positive[0][1])]]
        self.lines: list[str] = []

    def expert(self) -> Any:
        """Another model of the same kind."""
        return self.comfy.run("TinyHostModel", host=self.host, seed=1)[0]

    def again(self) -> Any:
        """The same model once more."""
        return self.comfy.run("TinyHostModel", host=self.host, seed=0)[0]

    def latent(self, frames: int | None = None, size: int | None = None) -> dict[str, Any]:
        with torch.inference_mode():
            return self.hosts.empty_latent(self.host, frames, size)

    def patched(self, strength: float = 1.0, model: Any = None, vae: Any = None) -> tuple[Any, Any]:
        """A MODEL whose estimates are corrected, and the report; what it shows goes to `lines`."""
        report = self.comfy.module("nodes.host.correction_report").EstimateReport()
        patch = self.comfy.module("nodes.host.steadying").EstimatePatch(
            strength, vae or self.vae, self.flow, report, say=self.show
        )
        return patch.attach(model or self.model), report

    def show(self, text: str) -> None:
        """What the node is told."""
        self.lines = text.split("\n")

    def sample(self, model: Any = None, **options: Any) -> Any:
        """Latents of ComfyUI's KSampler, or of KSampler (Advanced) if a start or an end of the steps is given."""
        model = model or self.model
        options = {"steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", **options}
        options = {"positive": self.positive, "negative": self.negative, "latent_image": self.latent(), **options}
        if "start_at_step" not in options:
            return self.comfy.run("KSampler", model=model, **{"seed": 3, "denoise": 1.0, **options})[0]
        return self.comfy.run("KSamplerAdvanced", model=model, noise_seed=3, **options)[0]

    def custom(
        self,
        model: Any,
        sigmas: Any,
        guider: str = "BasicGuider",
        sampler: str = "euler",
        latent: Any = None,
        noise: bool = True,
    ) -> Any:
        """Latents of SamplerCustomAdvanced."""
        run = self.comfy.run
        if guider == "BasicGuider":
            (made,) = run(guider, model=model, conditioning=self.positive)
        elif guider == "DualCFGGuider":
            (made,) = run(
                guider,
                model=model,
                cond1=self.positive,
                cond2=self.negative,
                negative=self.negative,
                cfg_conds=2.0,
                cfg_cond2_negative=1.5,
            )
        else:
            (made,) = run(guider, model=model, positive=self.positive, negative=self.negative, cfg=2.0)
        (noise_maker,) = run("RandomNoise", noise_seed=3) if noise else run("DisableNoise")
        (chosen,) = run("KSamplerSelect", sampler_name=sampler)
        return run(
            "SamplerCustomAdvanced",
            noise=noise_maker,
            guider=made,
            sampler=chosen,
            sigmas=sigmas,
            latent_image=latent or self.latent(),
        )[0]


def streams(latent: Any) -> list[torch.Tensor]:
    """The tensors within a LATENT: the video, and the sound if there is any."""
    samples = latent["samples"]
    return list(samples.unbind()) if getattr(samples, "is_nested", False) else [samples]


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(streams(a), streams(b), strict=True))
