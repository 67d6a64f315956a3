"""The general discriminator's data: split by sequence, repeatable, real and faulty alike but for the fault."""

from __future__ import annotations

import pytest
import torch

from motionprompt_core.demo.checkpoint import load_demo_weights
from motionprompt_core.discriminator.clips import Frames
from motionprompt_core.discriminator.model import load_discriminator
from motionprompt_core.discriminator.train import auroc
from motionprompt_core.flow import load_flow_model
from motionprompt_core.media.files import write_safetensors
from motionprompt_core.media.ops import gaussian_blur
from motionprompt_tools import world
from research.demo import truth
from research.demo.pipeline import DemoPipeline
from research.general import data as general_data
from research.general import footage as general_footage
from research.general import more_footage
from research.general import train as general
from research.general.faults import TRAINED
from research.general.footage import names
from research.statistics import bootstrap_auroc
from tests.core.test_clips import drifting, write_frames
from tests.gradient_flow import GradientFlow

SEQUENCES = general_data.TRAINING_SEQUENCES[:8]
SHIPPED = "general_discriminator_research_only.safetensors"


@pytest.fixture
def footage(tmp_path):
    for name in SEQUENCES:
        write_frames(drifting(30, 1.5, size=40), tmp_path / name)
    return tmp_path


def test_a_seed_gives_flow_of_a_real_clip_and_of_faulty_ones(footage):
    flows = [general_data.flows_of_seed(3, [footage], SEQUENCES, GradientFlow()) for _ in range(2)]
    assert flows[0].keys() == flows[1].keys()
    assert all(torch.equal(flow, flows[1][name]) for name, flow in flows[0].items())
    kinds = {name.removeprefix("fake.") for name in flows[0] if name != "real"}
    assert kinds and kinds <= set(TRAINED)
    assert flows[0]["real"].shape == (3, 4, general_data.GRID, general_data.GRID)


def test_the_demo_gives_a_steady_clip_a_faulty_one_and_the_model_s_own_of_the_same_prompt():
    pipeline = DemoPipeline(load_demo_weights("weights/demo_video_model.safetensors"), steps=2)
    clips = general_data.demo_clips(5, pipeline)
    assert clips.keys() == {"real", "fake.sprites", "fake.demo"}
    clip = world.random_clip(torch.Generator().manual_seed(5), fault_share=0)
    assert truth.read(clips["real"]).matches(clip)["colour"]
    flows = general_data.demo_flows(5, pipeline, load_flow_model("lucas_kanade"))
    assert {name: flow.shape for name, flow in flows.items()} == dict.fromkeys(clips, (3, 4, 64, 64))


def test_sequences_are_found_in_any_of_the_folders(footage, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (footage / "goat").rename(other / "goat")
    generator = torch.Generator().manual_seed(0)
    clips = [general_data.footage([footage, other], ["goat"], 32, generator) for _ in range(3)]
    assert all(clip.shape == (general_data.FRAMES, 3, 32, 32) for clip in clips)


def test_a_piece_of_one_clip_moves_over_another():
    back, front = torch.zeros(9, 3, 48, 48), torch.ones(9, 3, 48, 48)
    made = general_data.collage(back, front, torch.Generator().manual_seed(2))
    assert made.amin() == 0 and made.amax() > 0.9
    assert (made[1:] - made[:-1]).abs().mean() > 0.001


def test_pairs_that_a_fault_leaves_alone_are_not_called_faulty(tmp_path):
    real = torch.zeros(3, 2, 32, 32)
    faulty = real.clone()
    faulty[1, :, :16] = 2
    write_safetensors({"real": real, "fake.pop": faulty, "fake.lag": real}, tmp_path / "flows" / "0.safetensors", {})
    sides = general.load_flows([tmp_path])
    assert [len(side) for side in sides] == [1, 1] and torch.equal(sides[1][0], faulty[1:2])


def test_training_and_test_sequences_are_apart():
    learned = general_footage.TRAINING + general_footage.ADDED
    later = [more_footage.ADDED_LATER, more_footage.SCORED]
    sides = [learned, general_footage.CHOICES, general_footage.FINAL, *later]
    named = [*map(names, sides), general.TEST_SEQUENCES]
    assert len(set().union(*named)) == sum(map(len, named))
    files = [{(one.source, file) for one in side for file in one.files.values()} for side in sides]
    assert len(set().union(*files)) == sum(map(len, files))
    assert not {one.source for one in more_footage.SCORED} & {one.source for one in more_footage.ADDED_LATER}


def test_an_interval_over_sequences_is_wider_than_one_over_their_clips():
    clips = [Frames(f"{name} {start}+1", torch.zeros(1)) for name in "abcd" for start in range(6)]
    level = torch.arange(4.0).repeat_interleave(6)
    fakes = [torch.full((24,), 1.5), torch.full((24,), -1.0)]
    found = general.auroc_by_sequence(clips, level, fakes)
    over_clips = bootstrap_auroc(level.tolist(), torch.cat(fakes).tolist())
    assert found["auroc"] == over_clips["auroc"] and found["within_clip"] == 0.75
    assert found["high"] - found["low"] > over_clips["high"] - over_clips["low"]
    assert auroc(level, torch.cat(fakes)) == pytest.approx(found["auroc"])


def test_training_goes_on_from_the_weights_of_a_network():
    config = general.DiscriminatorConfig(img_size=32, patch_size=16, embed_dim=16, depth=1, num_heads=2, mlp_hidden=8)
    start = general.FlowDiscriminator(config)
    flows = [torch.randn(2, 2, 32, 32) for _ in range(4)]
    result = general.train_discriminator(flows, flows, config, epochs=1, batch=4, lr=1e-12, start=start)
    parts = zip(result.model.parameters(), start.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in parts)


def test_faulty_test_clips_repeat_and_differ(footage):
    clips = general.test_clips(footage, ["goat"])
    assert len(clips) == len(general.WINDOWS) and clips[0].video.shape == (12, 3, 128, 128)
    one, two = (general.faulty_clips(clips[:2], "melt", 1.0) for _ in range(2))
    assert all(torch.equal(a.video, b.video) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0].video, clips[0].video)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    model = load_discriminator(f"weights/{SHIPPED}")
    return general.Judge(model, tmp_path_factory.mktemp("cache"), pairs=4)


def panned(seed: int) -> Frames:
    """A camera's even pan over natural-looking texture."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 3, 160, 160, generator=generator)
    picture = sum(gaussian_blur(noise, sigma) * sigma for sigma in (1.5, 4.0, 10.0))
    picture = torch.sigmoid(1.5 * picture / picture.std())[..., 16:144, 16:144].expand(general.FRAMES, -1, -1, -1)
    return Frames(f"pan {seed}", general_data.pan(picture, generator).clamp(0, 1))


def test_the_pack_s_general_discriminator_tells_faults_it_never_saw_from_steady_motion(shipped):
    real = [panned(seed) for seed in range(6)]
    faulty = [clip for kind in ("wobble", "ghost", "identity_jump") for clip in general.faulty_clips(real, kind, 1.0)]
    scores = shipped(real)
    assert auroc(scores, shipped(faulty)) > 0.9
    assert (scores > 0).sum() >= 4  # of six; of real footage 86 %


def test_the_pack_s_general_discriminator_does_not_call_stills_fake(shipped):
    stills = [Frames(f"still {clip.name}", clip.video[:1].expand_as(clip.video)) for clip in map(panned, range(3))]
    assert (shipped(stills) > 0).all()


def test_the_pack_s_general_discriminator_says_what_it_may_be_used_for(shipped):
    assert "research_only" in SHIPPED and "RESEARCH ONLY" in shipped.model.config.trained_on
    assert shipped.model.metadata["license"] == "research only" and "goat" in shipped.model.metadata["sequences"]
