"""A node that compares the guidance's gradient with central differences, inside whatever sampler it is sampled by."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import cycle
from typing import Any

import torch


def pack_module(name: str) -> Any:
    """A module of the MotionPrompt pack as this ComfyUI loaded it."""
    import nodes

    root = nodes.NODE_CLASS_MAPPINGS["MotionPromptKSampler"].__module__.rsplit(".nodes.", 1)[0]
    return importlib.import_module(f"{root}.{name}")


def probe(results: list[dict[str, float]], epsilon: float) -> Any:
    """A hook for the optimiser that keeps the tokens as they are but writes down the slope by autograd and by
    differences: that along the gradient, and of a few random lines that with which it agrees least.

    The gradient alone would not show what is missing from it: its length is the slope along itself.
    """
    view = pack_module("motionprompt_core.guidance.view").View
    objective = pack_module("motionprompt_core.guidance.objective").objective

    @torch.no_grad()
    def on_gradient(optimiser, model, groups, gradients):
        tokens, settings, (pairs,) = optimiser.tokens, optimiser.settings, groups

        def loss(line: list[torch.Tensor], distance: float) -> float:
            moved = {key: row + distance * d for (key, row), d in zip(tokens.rows.items(), line, strict=True)}
            total = objective(view(model, model.predict_x0(model.encode(moved)), pairs), settings)[0].double()
            for key, row in moved.items():
                total = total + settings.lambda_reg * (row - tokens.initial[key]).double().square().sum()
            return float(total)

        def slopes(line: list[torch.Tensor]) -> dict[str, float]:
            near, far = (loss(line, times * epsilon) - loss(line, -times * epsilon) for times in (1, 2))
            autograd = sum(float((gradient * part).sum()) for gradient, part in zip(gradients, line, strict=True))
            return {"autograd": autograd, "differences": (8 * near - far) / (12 * epsilon)}

        with early_layers_as_they_are(model, tokens) if optimiser.mode.truncated else nullcontext():
            found = [slopes(line) for line in lines(gradients)]
        results.append(max(found, key=lambda slope: abs(slope["autograd"] - slope["differences"]) / slope["autograd"]))
        for gradient in gradients:
            gradient.zero_()

    return on_gradient


def lines(gradients: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Along the gradient, and beside it: random numbers count for a third of those slopes."""
    length = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    yield [gradient / length for gradient in gradients]
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        noise = [torch.randn(gradient.shape, generator=generator).to(gradient) for gradient in gradients]
        yield [gradient / length + 0.3 * part for gradient, part in zip(gradients, noise, strict=True)]


@contextmanager
def early_layers_as_they_are(model: Any, tokens: Any) -> Iterator[None]:
    """Within it a UNet's early layers, through which mode "fast" takes no gradient, give what they give now."""
    run = model.predict_x0.__self__.run
    layers = list(run.family.early_layers(run.guider.inner_model.diffusion_model))
    kept: dict[torch.nn.Module, list[torch.Tensor]] = {layer: [] for layer in layers}
    hooks = [layer.register_forward_hook(lambda layer, _, out: kept[layer].append(out.clone())) for layer in layers]
    model.predict_x0(model.encode(tokens.rows))
    for hook in hooks:
        hook.remove()

    def give(layer: torch.nn.Module) -> Any:
        calls = cycle(kept[layer])
        return lambda *_, **__: next(calls).clone()

    original = {layer: layer.__dict__.get("forward") for layer in layers}
    try:
        for layer in layers:
            layer.__dict__["forward"] = give(layer)
        yield
    finally:
        for layer, own in original.items():
            layer.__dict__.pop("forward")
            if own is not None:
                layer.__dict__["forward"] = own


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
        report = pack_module("nodes.host.report").GuidanceReport()
        guidance = pack_module("nodes.host.guidance").Guidance(settings, vae, flow_model, discriminator, report)
        results: list[dict[str, float]] = []
        guidance.on_gradient = probe(results, epsilon)
        return pack_module("nodes.host.sampling").MotionPromptPatch(guidance).attach(model), results


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
