"""The sprite world: what a caption says is what the frames show, and the flow is the motion."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from motionprompt_core.demo import text
from motionprompt_core.demo.checkpoint import load_demo_weights
from motionprompt_core.guidance.settings import GuidanceSettings
from motionprompt_tools import world
from research.demo import truth
from research.demo.networks import tokenize
from research.demo.pipeline import DemoPipeline


def clip(seed: int = 0, fault_share: float = 0.0, **fixed: str) -> world.Clip:
    return world.random_clip(torch.Generator().manual_seed(seed), fault_share, **fixed)


def test_truth_reads_rendered_clips_right():
    right: Counter[str] = Counter()
    generator = torch.Generator().manual_seed(3)
    for _ in range(40):
        shown = world.random_clip(generator, fault_share=0)
        reading = truth.read(world.render(shown)[0])
        right.update(key for key, match in reading.matches(shown).items() if match)
        assert reading.jitter < 0.5
        assert reading.permanence > 0.9
        assert reading.speed == pytest.approx(shown.speed, abs=0.3)
    for key in ("colour", "ground", "shape", "direction"):
        assert right[key] >= 39, right


def test_truth_sees_faults():
    steady = clip(5, direction="right")
    shaky = world.replace(steady, jitter=4.0)
    pulsing = world.replace(steady, pulse=0.15)
    readings = [truth.read(world.render(shown)[0]) for shown in (steady, shaky, pulsing)]
    assert readings[1].jitter > 2 > readings[0].jitter
    assert readings[2].area_variation > 0.1 > readings[0].area_variation


def test_truth_does_not_praise_an_empty_video():
    assert truth.read(torch.full((16, 3, 128, 128), 0.5)).permanence == 0


def test_flow_carries_each_frame_to_the_next():
    video, flow, mask = world.render(clip(1, shape="square", direction="left"))
    for t in (0, 7, 14):
        inside = mask[t] > 0.99
        ys, xs = inside.nonzero(as_tuple=True)
        x, y = xs + flow[t, 0][inside], ys + flow[t, 1][inside]
        grid = torch.stack((x, y), dim=-1)[None, None] / (world.SIZE - 1) * 2 - 1
        landed = F.grid_sample(video[t + 1][None], grid, align_corners=True)[0, :, 0]
        still = video[t + 1][:, inside]
        # In the sprite's inside the colour is constant along the flow; without the flow it is not.
        assert (landed - video[t][:, inside]).abs().mean() < 0.3 * (still - video[t][:, inside]).abs().mean()
        assert not flow[t].any(dim=0)[mask[t] == 0].any()


def test_the_sprite_never_leaves_the_frame():
    generator = torch.Generator().manual_seed(4)
    for _ in range(50):
        shown = world.random_clip(generator, fault_share=0)
        path = world.trajectory(shown)
        assert path.min() > 0.9 * shown.radius
        assert path.max() < world.SIZE - 0.9 * shown.radius


def test_same_seed_same_clip():
    first, second = world.render(clip(9, 1.0)), world.render(clip(9, 1.0))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_captions_name_the_content_and_faults_are_captioned_more_often():
    shown = clip(2)
    line = world.caption(shown)
    assert shown.colour in line
    assert shown.shape in line
    generator = torch.Generator().manual_seed(0)
    bad = world.replace(shown, jitter=3.0)
    counts = [sum("shaky" in world.caption(c, generator) for _ in range(300)) for c in (bad, shown)]
    assert counts[0] > 3 * counts[1]


def test_every_caption_word_is_known_and_unknown_words_are_not_an_error():
    generator = torch.Generator().manual_seed(6)
    for _ in range(100):
        line = world.caption(world.random_clip(generator), generator)
        assert all(word in text.VOCABULARY for word in line.split())
    ids = tokenize(["a purple zeppelin " * 20])
    assert ids.shape == (1, text.MAX_LENGTH)
    assert ids[0, -1] == text.VOCABULARY[text.END]


@pytest.mark.parametrize("shape", [(2, 3, 128, 128), (16, 1, 128, 128)])
def test_truth_says_what_it_needs(shape):
    with pytest.raises(ValueError, match="expected frames"):
        truth.read(torch.zeros(shape))


@pytest.fixture(scope="module")
def pipeline(repo_root):
    return DemoPipeline(load_demo_weights(repo_root / "weights" / "demo_video_model.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["a red star moving left on snow", "a yellow square moving down at night"])
def test_the_demo_model_shows_what_the_prompt_says(pipeline, prompt):
    words = prompt.split()
    reading = truth.read(pipeline.sample(prompt, seed=1)[0])
    assert (reading.colour, reading.shape, reading.direction) == (words[1], words[2], words[4])
    assert reading.ground == words[-1]
    assert reading.jitter < 3


def test_the_estimates_that_are_judged_can_be_looked_at(pipeline):
    seen = []
    short = DemoPipeline(pipeline.weights, steps=3, frames=4)
    video, _ = short.sample("a red star", 0, on_estimate=lambda step, t, x0: seen.append((step, t, x0)))
    assert [(step, t) for step, t, _ in seen] == [(0, 999), (1, 666), (2, 333)]
    assert all(x0.shape == (4, 4, 16, 16) for _, _, x0 in seen)
    distance = [(short.decode(x0) - video).square().mean() for _, _, x0 in seen]
    assert distance[0] > distance[2]


def test_tokens_that_do_not_learn_change_the_video_only_as_words_do(pipeline):
    short = DemoPipeline(pipeline.weights, steps=3, frames=4)
    settings = GuidanceSettings(start=0, stop=1)
    plain, _ = short.sample("a red star", 0)
    control, guided = short.sample("a red star", 0, settings, "smooth", learn=False)
    assert torch.allclose(control, short.sample("a red star smooth", 0)[0], atol=1e-5)
    assert not torch.allclose(control, plain, atol=1e-3) and not guided
    front = DemoPipeline(pipeline.weights, steps=3, frames=4, placement="front")
    assert torch.allclose(
        front.sample("a red star", 0, settings, "smooth", learn=False)[0],
        front.sample("smooth a red star", 0)[0],
        atol=1e-5,
    )
