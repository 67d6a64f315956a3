"""Presets: what applies when a preset, a settings node and sliders all have a say."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from motionprompt_core.guidance.presets import PRESETS, describe, remark, resolve
from motionprompt_core.guidance.settings import DEFAULTS, KNOBS, GuidanceSettings

ROOT = Path(__file__).resolve().parents[2]


def test_a_preset_alone_is_itself_and_what_was_moved_comes_last():
    assert resolve("demo") == PRESETS["demo"].settings
    assert describe(resolve("demo")) == "preset demo"
    layers = {"lambda_tv": 5.0, "mode": None}, {"mode": "fast", "start": None}
    assert describe(resolve("demo", *layers)) == "preset demo, but mode fast, lambda_tv 5"
    assert describe(GuidanceSettings()) == ""


def test_a_preset_of_another_model_is_remarked_upon():
    assert "for that one only" in remark(resolve("demo"), "frames")
    assert "there is the preset demo" in remark(resolve("paper"), "demo")
    assert (
        remark(resolve("demo"), "demo") == remark(resolve("paper"), "frames") == remark(GuidanceSettings(), "x") == ""
    )


def test_the_later_layer_wins():
    assert resolve("paper", {"iterations": 4}, {"iterations": 5}).iterations == 5


def test_an_unknown_preset_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"preset is 'best', but must be one of: .*paper"):
        resolve("best")


@pytest.mark.parametrize("layer", [{"stepps": 3}, {"start": 0.95}])
def test_what_a_layer_says_is_checked_with_the_rest(layer):
    with pytest.raises(ValueError, match="stepps|stops at 0.9"):
        resolve("demo", layer)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_no_opinion_on_what_the_sliders_always_say(name):
    """`OWN` in nodes/options.py: their inputs always count, so a preset's value would never be asked for."""
    settings = PRESETS[name].settings
    assert (settings.strength, settings.preserve_motion, settings.checkpointing) == (1.0, 0.0, "auto")


def test_paper_is_the_paper():
    paper = PRESETS["paper"].settings
    assert (paper.mode, paper.iterations, paper.start, paper.stop) == ("exact", 3, 0.08, 0.30)
    assert (paper.outside_window, paper.preserve_motion, paper.preserve_detail) == ("plain", 0, 0)


@pytest.mark.parametrize("table", ["quick", "baselines"])
def test_the_demo_preset_with_tokens_is_what_the_tables_were_made_with(table):
    config = json.loads((ROOT / "docs" / "evidence" / f"{table}.json").read_text())["config"]
    settings = PRESETS["demo"].settings
    assert settings.guide == "estimate"
    assert GuidanceSettings.from_dict(config["settings"]) == dataclasses.replace(settings, guide="tokens")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_its_evidence_under_a_heading_that_there_is(name):
    page = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    headings = re.findall(r"docs/evidence.md, ([^)]+)\)", PRESETS[name].evidence)
    assert headings
    assert [heading for heading in headings if f"\n## {heading}\n" not in page] == []


@pytest.mark.parametrize("name", KNOBS)
def test_a_knob_is_described_and_its_default_is_allowed(name):
    knob = KNOBS[name]
    assert knob.text[0].isupper() and knob.text.endswith(".")
    knob.check(name, DEFAULTS[name], DEFAULTS[name])
    for value in knob.offered:
        knob.check(name, value, DEFAULTS[name])
    assert list(knob.offered) == sorted(set(knob.offered))
