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


def probing_optimiser(results: list[dict[str, float]], epsilon: float) -> type:
    """An optimiser that changes nothing but writes down the slope along the gradient, by autograd and by
    differences."""
    guidance = pack_module("motionprompt_core.guidance.optimise")
    decoding = pack_module("motionprompt_core.guidance.decoding")

    class ProbingOptimiser(guidance.PromptOptimiser):
        def optimise(self, model, step, compare=False, on_iteration=None):
            num_frames = decoding.count_frames(model.decode, model.predict_x0(model.encode(self.tokens.rows)))
            draw_pairs = pack_module("motionprompt_core.guidance.pairs").draw_pairs
            pairs = draw_pairs(num_frames, self.settings, self.generator, model.flows)
            gradients: list[torch.Tensor] = []
            self._move = lambda adam, found: gradients.extend(found) or 0.0
            self._iterate(model, step, self._optimiser(), [pairs])
            # Along the gradient itself: were any part of it wrong, its length would not be the slope in its direction.
            length = torch.cat([gradient.flatten() for gradient in gradients]).norm()
            line = [gradient / length for gradient in gradients]
            near = self._loss(model, line, epsilon, pairs) - self._loss(model, line, -epsilon, pairs)
            far = self._loss(model, line, 2 * epsilon, pairs) - self._loss(model, line, -2 * epsilon, pairs)
            result = {"step": step.step, "autograd": float(length), "differences": (8 * near - far) / (12 * epsilon)}
            result["loss"] = step.iterations[-1].loss
            results.append(result)

        @torch.no_grad()
        def _loss(self, model, line, distance, pairs) -> float:
            moved = {key: row + distance * d for (key, row), d in zip(self.tokens.rows.items(), line, strict=True)}
            x0 = model.mixed(model.predict_x0(model.encode(moved)))
            loss = guidance.motion_loss(model, x0, pairs, self.settings).total.double()
            for key, row in moved.items():
                loss = loss + self.settings.lambda_reg * (row - self.tokens.initial[key]).double().square().sum()
            return float(loss)

    return ProbingOptimiser


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
        settings = pack_module("motionprompt_core.guidance.settings").GuidanceSettings(**json.loads(settings))
        report = pack_module("motionprompt_core.guidance.report").GuidanceReport()
        patch = pack_module("nodes.host.sampling").MotionPromptPatch(settings, vae, flow_model, discriminator, report)
        results: list[dict[str, float]] = []
        patch.optimiser = probing_optimiser(results, epsilon)
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
