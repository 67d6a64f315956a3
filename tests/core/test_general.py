"""The general discriminator's data: split by sequence, repeatable, real and faulty alike but for the fault."""

from __future__ import annotations

import json

import pytest
import torch

from motionprompt_core.demo import tweedie
from motionprompt_core.flow import GradientFlow
from motionprompt_core.training import general, general_data
from motionprompt_core.training.faults import TRAINED
from tests.core.test_clips import drifting, write_frames


@pytest.fixture
def footage(tmp_path):
    for name in general_data.TRAINING_SEQUENCES:
        write_frames(drifting(30, 1.5, size=40), tmp_path / name)
    return tmp_path


def test_a_seed_gives_flow_of_a_real_clip_and_of_faulty_ones(footage):
    flows = [general_data.flows_of_seed(3, footage, general_data.TRAINING_SEQUENCES, GradientFlow()) for _ in range(2)]
    assert flows[0].keys() == flows[1].keys()
    assert all(torch.equal(flow, flows[1][name]) for name, flow in flows[0].items())
    kinds = {name.removeprefix("fake.") for name in flows[0] if name != "real"}
    assert kinds and kinds <= set(TRAINED)
    assert flows[0]["real"].shape == (3, 2, 128, 128)


def test_the_sequence_of_a_seed_is_the_one_that_it_is_made_from(footage, monkeypatch):
    taken = []
    window = general_data.window

    def watched(folder, *args):
        taken.append(folder.name)
        return window(folder, *args)

    monkeypatch.setattr(general_data, "window", watched)
    for seed in range(5):
        taken.clear()
        general_data.real_clip(footage, general_data.TRAINING_SEQUENCES, torch.Generator().manual_seed(seed))
        assert taken == ([general_data.sequence_of(seed)] if general_data.sequence_of(seed) else [])


def test_training_and_test_sequences_are_apart():
    assert not set(general_data.TRAINING_SEQUENCES) & set(general.TEST_SEQUENCES)


def test_faulty_test_clips_repeat_and_differ(footage):
    clips = general.test_clips(footage, ["goat"])
    assert len(clips) == len(general.WINDOWS) and clips[0].video.shape == (12, 3, 128, 128)
    one, two = (general.faulty_clips(clips[:2], "melt", 1.0) for _ in range(2))
    assert all(torch.equal(a.video, b.video) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0].video, clips[0].video)


def test_the_comparison_of_discriminators_is_paired_by_seed():
    rows = [{"seed": seed, "arm": arm, **dict.fromkeys(tweedie.METRICS, seed + (arm == "aware"))}
            for seed in range(5) for arm in tweedie.ARMS]
    summary = tweedie.summarise([*rows, {"seed": 9, "arm": "plain", **dict.fromkeys(tweedie.METRICS, 0.0)}])
    assert summary["seeds"] == 5
    assert summary["differences"]["aware - clean"]["jitter"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    json.dumps(summary)
