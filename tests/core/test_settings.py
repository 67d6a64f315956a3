"""GuidanceSettings: what an artist may type, and what they are told if they may not."""

from __future__ import annotations

import json
import math

import pytest

from motionprompt_core.guidance.settings import GuidanceSettings


def test_defaults_survive_json():
    settings = GuidanceSettings(iterations=5, loss_on="cfg")
    assert GuidanceSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strength", -0.1),
        ("strength", math.nan),
        ("iterations", 0),
        ("iterations", 1.5),
        ("start", -0.2),
        ("stop", 1.2),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("beta2", 1.0),
        ("lambda_tv", -1.0),
        ("adversarial", "hinge"),
        ("outside_window", None),
        ("fresh_adam", 1),
        ("pairs", 0),
        ("max_gap", -1),
        ("every", True),
        ("checkpointing", "yes"),
        ("preserve_motion", -1.0),
        ("preserve_detail", -1.0),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(name, value):
    with pytest.raises(ValueError, match=name) as caught:
        GuidanceSettings(**{name: value})
    assert repr(value) in str(caught.value)
    assert "must be" in str(caught.value)


def test_a_negative_window_says_how_to_mend_it():
    with pytest.raises(ValueError, match=r"negative.*0\.5.*0\.2.*Set stop to 0\.5"):
        GuidanceSettings(start=0.5, stop=0.2)


def test_unknown_settings_are_named():
    with pytest.raises(ValueError, match="stepps"):
        GuidanceSettings.from_dict({"stepps": 3})
