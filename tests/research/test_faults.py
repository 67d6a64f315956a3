"""Simulated faults: each changes a clip, the more so the more severe; those that are kept for testing stay so."""

from __future__ import annotations

import pytest
import torch

from research.general import data as general_data
from research.general import faults


def drifting(frames: int = 9, size: int = 48) -> torch.Tensor:
    """A soft pattern that moves evenly, (frames, 3, size, size)."""
    x = torch.arange(size)[None, None, :] - 1.5 * torch.arange(frames)[:, None, None]
    y = torch.arange(size)[None, :, None] + 0.5 * torch.arange(frames)[:, None, None]
    waves = torch.stack([0.5 + 0.2 * torch.sin(x / s) + 0.2 * torch.cos(y / (s + 1)) for s in (2.0, 4.0, 7.0)])
    return waves.movedim(0, 1).clamp(0, 1)


def apply(name: str, severity: float, seed: int = 0) -> torch.Tensor:
    return faults.apply_fault(name, drifting(), severity, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", faults.FAULTS)
def test_a_fault_changes_the_clip_more_the_more_severe_and_repeats(name):
    clip = drifting()
    change = [torch.stack([(apply(name, s, seed) - clip).abs().mean() for seed in range(6)]).mean() for s in (0.25, 1)]
    assert 0 < change[0] < change[1]
    faulty = apply(name, 1.0)
    assert faulty.shape == clip.shape and 0 <= faulty.min() and faulty.max() <= 1
    assert torch.equal(faulty, apply(name, 1.0))


def test_kinds_for_testing_are_never_trained_on():
    assert not set(faults.TRAINED) & set(faults.TEST_ONLY)
    assert len(faults.TRAINED) >= 4 and len(faults.TEST_ONLY) >= 4


@pytest.mark.parametrize("name", ["stutter", "wrong_order"])
def test_held_and_shuffled_frames_are_all_from_the_clip(name):
    clip = drifting()
    for frame in apply(name, 1.0):
        assert (clip - frame).abs().amax(dim=(1, 2, 3)).min() == 0


def test_bad_input_is_refused():
    generator = torch.Generator()
    with pytest.raises(ValueError, match="fault 'rust' is unknown, expected one of swim"):
        faults.apply_fault("rust", drifting(), 1.0, generator)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 48, 48\)"):
        faults.apply_fault("swim", drifting()[:2], 1.0, generator)
    with pytest.raises(ValueError, match="severity is 0"):
        faults.apply_fault("swim", drifting(), 0, generator)


def test_a_still_shown_with_a_pan_moves_evenly():
    clip = general_data.pan(drifting()[:1].expand(9, -1, -1, -1), torch.Generator().manual_seed(1))
    steps = (clip[1:] - clip[:-1]).abs().mean(dim=(1, 2, 3))
    assert steps.min() > 0 and steps.max() < 3 * steps.min()
