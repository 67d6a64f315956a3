"""What LaVie, VideoCrafter2 and DynamiCrafter are said to cost is what is counted on their full-size networks."""

from __future__ import annotations

import pytest

from scripts.locate import comfyuis

FAMILIES = ("lavie", "videocrafter2", "dynamicrafter")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", FAMILIES)
def test_the_told_cost_is_the_counted_one(family):
    if not comfyuis():
        pytest.skip("no ComfyUI found")
    from research.cost import video_models

    counted = video_models.found(video_models.count(family, 320, 512))
    told = video_models.told(family, 320, 512)
    assert told["inference"] > 0.95 * counted.pop("inference"), "ComfyUI would plan with too little"
    for name, value in counted.items():
        assert told[name] == pytest.approx(value, rel=0.2), name
