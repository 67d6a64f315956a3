"""A node that compares the guidance's gradient with central differences, inside whatever sampler it is sampled by."""

from __future__ import annotations

import importlib
import json
from typing import Any

import torch


def pack_module(name: str) -> Any:
    """A module of the MotionPrompt pack as this ComfyUI loaded it."""
    import nodes

    root = nodes.NODE_CLASS_MAPPINGS["MotionPromptKSampler"].__module__.rsplit(".nodes.", 1)[0]
    return importlib.import_module(f"{root}.{name}")


def probe(results: list[dict[str, float]], epsilon: float) -> Any:
    """A hook for the optimiser that keeps the tokens as they are but writes down the slope along the gradient, by
    autograd and by differences."""
    view = pack_module("motionprompt_core.guidance.view").View
    objective = pack_module("motionprompt_core.guidance.objective").objective

    @torch.no_grad()
    def on_gradient(optimiser, model, groups, gradients):
        tokens, settings, (pairs,) = optimiser.tokens, optimiser.settings, groups

        def loss(distance: float) -> float:
            moved = {key: row + distance * d for (key, row), d in zip(tokens.rows.items(), line, strict=True)}
            total = objective(view(model, model.predict_x0(model.encode(moved)), pairs), settings)[0].double()
            for key, row in moved.items():
                total = total + settings.lambda_reg * (row - tokens.initial[key]).double().square().sum()
            return float(total)

        # Along the gradient itself: were any part of it wrong, its length would not be the slope in its direction.
        length = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        line = [gradient / length for gradient in gradients]
        near, far = (loss(times * epsilon) - loss(-times * epsilon) for times in (1, 2))
        results.append({"autograd": float(length), "differences": (8 * near - far) / (12 * epsilon)})
        for gradient in gradients:
            gradient.zero_()

    return on_gradient


class GradientProbe:
    CATEGORY = "tests"
    FUNCTION = "apply"
    RETURN_TYPES = ("MODEL", "GRADIENT_PROBE")

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL",),
                "vae": ("VAE",),
                "flow_model": ("MOTIONPROMPT_FLOW",),
                "settings": ("STRING", {"default": "{}"}),
                "epsilon": ("FLOAT", {"default": 1e-2, "min": 1e-6, "max": 10.0}),
            },
            "optional": {"discriminator": ("MOTIONPROMPT_DISCRIMINATOR",)},
        }

    def apply(self, model, vae, flow_model, settings, epsilon, discriminator=None):
        values = {"iterations": 1, **json.loads(settings)}
        settings = pack_module("motionprompt_core.guidance.settings").GuidanceSettings(**values)
        report = pack_module("motionprompt_core.guidance.report").GuidanceReport()
        patch = pack_module("nodes.host.sampling").MotionPromptPatch(settings, vae, flow_model, discriminator, report)
        results: list[dict[str, float]] = []
        patch.on_gradient = probe(results, epsilon)
        return patch.attach(model), results


class ShowGradientProbe:
    CATEGORY = "tests"
    FUNCTION = "show"
    RETURN_TYPES = ("STRING",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"probe": ("GRADIENT_PROBE",), "latent": ("LATENT",)}}

    def show(self, probe, latent):
        text = json.dumps(probe)
        return {"ui": {"text": [text]}, "result": (text,)}


NODE_CLASS_MAPPINGS = {"GradientProbe": GradientProbe, "ShowGradientProbe": ShowGradientProbe}
