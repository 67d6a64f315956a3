"""Before and after: a slice through time in which shake shows."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

GAP, TITLE = 8, 24


@pytest.fixture(scope="module")
def picture(comfy) -> ModuleType:
    return comfy.module("nodes.before_after")


def moving(places: list[int], down: bool = False) -> Tensor:
    """A white square of 8 px that is at these places of a black video of 40 x 48 px."""
    video = torch.zeros(len(places), 3, 40, 48)
    for frame, place in zip(video, places, strict=True):
        rows, columns = (slice(place, place + 8), slice(20, 28)) if down else (slice(20, 28), slice(place, place + 8))
        frame[:, rows, columns] = 1
    return video


def test_the_slice_lies_along_the_motion_and_shows_where_things_were(picture) -> None:
    places = [2, 6, 9, 14, 18]
    line = picture.busiest_line(moving(places))
    assert line[0] == 2 and 20 <= line[1] < 28
    assert picture.time_slice(moving(places), line)[0].argmax(dim=1).tolist() == places
    assert picture.busiest_line(moving(places, down=True))[0] == 3


def test_both_stand_side_by_side_over_their_slices(picture) -> None:
    before, after = moving([2, 6, 9, 14, 18]), moving([2, 6, 10, 14, 18, 22])
    shown_all = picture.before_after(before, after)
    times, thick = 5, 20  # 48 px become 240; half of 200 px for five frames
    column = 48 * times + 2 * GAP
    assert shown_all.shape == (5, 3, TITLE + 40 * times + GAP + 5 * thick + 2 * GAP, 2 * column)
    top, left = GAP + TITLE, GAP
    shown = shown_all[..., top : top + 40 * times : times, left : left + 48 * times : times]
    assert torch.equal(shown, before)  # the red line is between the pixels looked at
    slices = shown_all[0, 0, -GAP - 5 * thick : -GAP : thick]
    for start, places in ((0, [2, 6, 9, 14, 18]), (column, [2, 6, 10, 14, 18])):
        inside = slices[:, start + 2 * GAP : start + column - 2 * GAP]  # beside the marks of the moment
        assert [(int(row.argmax()) + GAP) // times for row in inside] == places


def test_the_smaller_is_scaled_to_the_others_size(picture) -> None:
    large = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    small = torch.nn.functional.avg_pool2d(large, 2)
    whole = picture.before_after(large, large).shape
    assert picture.before_after(small, large).shape == picture.before_after(large, small).shape == whole


def test_an_empty_video_is_refused(picture) -> None:
    with pytest.raises(ValueError, match="has no frames"):
        picture.before_after(torch.zeros(0, 3, 40, 48), torch.zeros(2, 3, 40, 48))
