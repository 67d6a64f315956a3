"""Steady Motion put into ComfyUI's own video templates, and run on tiny models to the end of their last sampler."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

from scripts.put_steady_motion import NODE, broken_links, graphs_of, put_steady_motion
from tests.comfyui.templates import EIGHT, TinyTemplate, templates
from tests.comfyui.tiny_hosts import TinyHost, streams

TEXTS = templates()


@pytest.fixture(params=EIGHT)
def name(request):
    if request.param not in TEXTS:
        pytest.skip("the templates are absent (set MOTIONPROMPT_TEMPLATES to the wheel that they come in)")
    return request.param


def test_the_node_is_put_in_and_every_link_holds(name):
    workflow = json.loads(TEXTS[name])
    assert not broken_links(workflow)
    changed, count = put_steady_motion(workflow)
    assert count == (2 if name == "video_wan2_2_14B_i2v" else 1) and not broken_links(changed)
    put = [node for graph in graphs_of(changed) for node in graph["nodes"] if node["type"] == NODE]
    assert len(put) == count and all(node["outputs"][0]["links"] for node in put)


def test_it_runs_on_tiny_models_and_every_step_is_corrected_or_named(tiny, name, monkeypatch):
    host_name = EIGHT[name]
    if host_name not in sys.modules[tiny.comfy.node("TinyHostModel").__module__].HOSTS:
        pytest.skip(f"this ComfyUI has no {host_name}")
    host = TinyHost(tiny.comfy, host_name, tiny.flow)
    vae = host.vae
    if host_name == "ltx2":  # ComfyUI's nodes take the tiny one's frames for those of Wan 2.2's
        vae = importlib.import_module(f"{tiny.comfy.node('TinyVideoModel').__module__}.ltx").ltxv_vae()
    report_class = tiny.comfy.module("nodes.host.correction_report").EstimateReport
    reports, summary = [], report_class.summary

    def kept(self):
        reports.append((sorted({s.step for s in self.steps}), sorted(self.left), self.num_steps))
        return summary(self)

    monkeypatch.setattr(report_class, "summary", kept)
    changed, _ = put_steady_motion(json.loads(TEXTS[name]))
    latents = TinyTemplate(changed, host, vae).run()
    assert latents and len(reports) == len(latents)
    for _, latent in latents:
        assert all(stream.isfinite().all() for stream in streams(latent))
    for corrected, left, total in reports:
        assert not set(corrected) & set(left) and len(corrected) + len(left) <= total
    assert any(corrected for corrected, _, _ in reports)
    assert sorted({step for corrected, left, _ in reports for step in corrected + left}) == list(range(reports[0][2]))
