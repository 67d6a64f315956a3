"""Every sampler and scheduler of the stock KSampler guides exactly the steps asked for, once each."""

from __future__ import annotations

import ast

import pytest

from tests.comfyui.inprocess import chosen_comfyui


def names(kind: str) -> list[str]:
    """ComfyUI's own list, read when the tests are collected; empty where ComfyUI is missing."""
    path = chosen_comfyui()
    tree = ast.parse((path / "comfy" / "samplers.py").read_text(encoding="utf-8")) if path else ast.Module([], [])
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == kind:
            keys = node.value.keys if isinstance(node.value, ast.Dict) else node.value.elts
            return [key.value for key in keys]
    return []


SAMPLERS = [*names("KSAMPLER_NAMES"), "ddim", "uni_pc", "uni_pc_bh2"]
SCHEDULERS = names("SCHEDULER_HANDLERS")


@pytest.mark.parametrize("sampler_name", [name for name in SAMPLERS if name != "dpm_adaptive"])
def test_each_sampler_guides_the_asked_for_steps_once(tiny, sampler_name):
    options = {"stop": 1.0, "every": 2, "iterations": 1, "learning_rate": 1e-3, "steps": 6, "cfg": 1.0}
    _, report = tiny.guided(sampler_name=sampler_name, latent_image=tiny.latent(2, size=16), **options)
    assert report.planned == [0, 2, 4]
    assert report.guided == [0, 2, 4]
    assert report.missed == []


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("sampler_name", ["euler", "dpm_fast", "dpmpp_2s_ancestral"])
def test_each_scheduler_guides_the_asked_for_steps_once(tiny, scheduler, sampler_name):
    options = {"start": 0.3, "stop": 0.7, "learning_rate": 1e-3, "steps": 7, "cfg": 1.0}
    options |= {"sampler_name": sampler_name, "scheduler": scheduler, "latent_image": tiny.latent(2, size=16)}
    _, report = tiny.guided(**options)
    assert report.guided == report.planned == list(range(3, 3 + len(report.planned)))
    assert len(report.planned) >= 2


def test_dpm_adaptive_says_that_it_cannot_be_promised(tiny):
    with pytest.raises(ValueError, match="dpm_adaptive.*Choose another sampler"):
        tiny.guided(sampler_name="dpm_adaptive")


def test_custom_sampler_nodes_are_guided_too(tiny):
    model, report = tiny.applied()
    run = tiny.comfy.run
    (sigmas,) = run("BasicScheduler", model=model, scheduler="karras", steps=4, denoise=1.0)
    (guider,) = run("BasicGuider", model=model, conditioning=tiny.learnable)
    tiny.sampled_by(guider, sigmas, "heun")
    assert report.guided == [0, 1]


def test_advanced_ksampler_counts_its_own_steps(tiny):
    model, report = tiny.applied()
    tiny.comfy.run(
        "KSamplerAdvanced",
        model=model,
        add_noise="enable",
        noise_seed=1,
        steps=8,
        cfg=5.0,
        sampler_name="euler",
        scheduler="normal",
        positive=tiny.learnable,
        negative=tiny.negative,
        latent_image=tiny.latent(),
        start_at_step=0,
        end_at_step=4,
        return_with_leftover_noise="enable",
    )
    assert report.num_steps == 4
    assert report.guided == [0, 1]
