"""The picture of the project's rooms: drawn from its imports, which form no circle."""

from __future__ import annotations

import pytest
from PIL import Image

from scripts.draw_structure import direct, draw, levels, rooms


def test_rooms_stand_above_what_they_import():
    lines, arrows = rooms()
    found = levels(arrows)
    assert found["nodes"] > found["nodes/host"] > found["motionprompt_core/guidance"] > found["motionprompt_core/media"]
    core = [others for room, others in arrows.items() if room.startswith("motionprompt_core")]
    assert not [other for others in core for other in others if not other.startswith("motionprompt_core")]
    tools = {other for room, others in arrows.items() if room.startswith("motionprompt_tools") for other in others}
    assert tools and not [other for other in tools if not other.startswith(("motionprompt_core", "motionprompt_tools"))]
    assert lines["nodes/host"] > 1000


def test_a_circle_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"circle.*: a, b"):
        levels({"a": {"b"}, "b": {"a"}, "c": set()})


def test_an_arrow_that_a_longer_way_shows_is_left_out():
    assert direct({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_the_picture_is_drawn(tmp_path):
    draw(tmp_path / "structure.png")
    with Image.open(tmp_path / "structure.png") as picture:
        assert picture.width > 500 and len(picture.convert("RGB").getcolors(1 << 24) or []) > 10
