"""Training a discriminator: it learns what it is shown, judges held-out clips, and repeats itself exactly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from motionprompt_core.discriminator.flows import degrade, extract_flows, flip
from motionprompt_core.discriminator.model import DiscriminatorConfig, load_discriminator, save_discriminator
from motionprompt_core.discriminator.train import auroc, clip_score, train_discriminator
from motionprompt_core.media.ops import gaussian_blur
from tests.gradient_flow import GradientFlow

TINY = DiscriminatorConfig(
    img_size=32,
    patch_size=8,
    embed_dim=48,
    depth=2,
    num_heads=2,
    mlp_hidden=48,
    flow_model="synthetic",
)


def flow_clips(count: int, jitter: float, seed: int, pairs: int = 4, size: int = 32) -> list[torch.Tensor]:
    """Clips of smooth flow around a uniform motion, px; with jitter, small cells also move on their own."""
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for _ in range(count):
        glide = torch.randn(1, 2, 1, 1, generator=generator)
        flow = glide + 10 * gaussian_blur(torch.randn(pairs, 2, size, size, generator=generator), 6.0)
        cells = torch.randn(pairs, 2, size // 4, size // 4, generator=generator)
        clips.append(flow + jitter * F.interpolate(cells, size=(size, size), mode="bilinear"))
    return clips


@pytest.fixture(scope="module")
def trained():
    return train_discriminator(flow_clips(24, 0.0, 1), flow_clips(24, 1.5, 2), TINY, epochs=20, seed=0)


@pytest.mark.slow
def test_tells_smooth_from_jittered_flow_on_clips_it_never_saw(trained):
    with torch.no_grad():
        real = trained.model(torch.cat(flow_clips(12, 0.0, 3)))
        fake = trained.model(torch.cat(flow_clips(12, 1.5, 4)))
    assert auroc(real, fake) > 0.95
    assert real.sigmoid().mean() > 0.6 > 0.4 > fake.sigmoid().mean()
    assert trained.best.auroc > 0.95 and trained.best == min(trained.history, key=lambda h: h.val_loss)


def test_the_gradient_of_phi_points_to_smoother_motion(trained):
    """What guidance needs: a small step against the loss makes jittered flow more real, and rougher flow is less so."""
    flow = torch.cat(flow_clips(4, 0.0, 5))
    cells = F.interpolate(torch.randn(16, 2, 8, 8, generator=torch.Generator().manual_seed(6)), size=(32, 32))
    with torch.no_grad():
        means = [trained.model(flow + amount * cells).mean().item() for amount in (0, 0.75, 1.5)]
    assert means[0] > means[1] > means[2]


def test_the_result_is_ready_to_save_and_use(trained, tmp_path):
    save_discriminator(trained.model, tmp_path / "d.safetensors", **trained.best.to_dict())
    loaded = load_discriminator(tmp_path / "d.safetensors")
    assert loaded.metadata["auroc"] == trained.best.auroc
    flow = torch.cat(flow_clips(1, 0.0, 7))
    assert torch.equal(loaded(flow), trained.model(flow))


def test_same_seed_same_weights_whatever_the_global_random_state():
    def weights(seed: int, state: int) -> torch.Tensor:
        torch.manual_seed(state)
        result = train_discriminator(flow_clips(4, 0, 1), flow_clips(4, 1, 2), TINY, epochs=2, seed=seed, noise=0.1)
        return torch.cat([parameter.flatten() for parameter in result.model.parameters()])

    first = weights(0, 1)
    assert torch.equal(first, weights(0, 2))
    assert not torch.equal(first, weights(1, 1))


def test_nothing_is_learnt_where_there_is_nothing_to_learn():
    """Both sides from one distribution: held-out AUROC stays near chance, so no clip leaked across the split."""
    result = train_discriminator(
        flow_clips(20, 0.0, 8, pairs=8),
        flow_clips(20, 0.0, 9, pairs=8),
        TINY,
        epochs=8,
        val_share=0.5,
        patience=8,
    )
    assert 0.2 < result.history[-1].auroc < 0.8


def test_stops_early_and_reports_each_epoch():
    seen = []
    result = train_discriminator(
        flow_clips(4, 0.0, 1),
        flow_clips(8, 0.0, 2),
        TINY,
        epochs=30,
        patience=2,
        lr=1e-5,
        on_epoch=seen.append,
    )
    assert seen == result.history and len(seen) < 30
    assert [epoch.epoch for epoch in seen] == list(range(len(seen)))


def test_a_callback_that_raises_ends_the_training():
    def stop(_result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_discriminator(flow_clips(2, 0, 1), flow_clips(2, 1, 2), TINY, on_epoch=stop)


def test_mirroring_moves_and_turns_the_flow():
    flow = torch.zeros(2, 2, 4, 6)
    flow[:, 0, 1, 0], flow[:, 1, 1, 0] = 3, 5  # at the left, going right and down
    yes, no = torch.tensor([True, False]), torch.tensor([False, False])
    left_right = flip(flow, yes, no)
    assert left_right[0, :, 1, 5].tolist() == [-3, 5] and torch.equal(left_right[1], flow[1])
    up_down = flip(flow, no, yes)
    assert up_down[0, :, 2, 0].tolist() == [3, -5]
    assert torch.equal(flip(flip(flow, yes, yes), yes, yes), flow)


def test_degrading_blurs_adds_noise_and_repeats():
    flow = torch.cat(flow_clips(2, 1.0, 1))

    def degraded(**strength):
        return degrade(flow, **{"blur": 0.0, "noise": 0.0, **strength}, generator=torch.Generator().manual_seed(0))

    def roughness(x: torch.Tensor) -> float:
        return (x[..., 1:] - x[..., :-1]).abs().mean().item()

    assert torch.equal(degraded(), flow)
    assert roughness(degraded(blur=20.0)) < roughness(flow) < roughness(degraded(noise=5.0))
    assert torch.equal(degraded(blur=20.0, noise=5.0), degraded(blur=20.0, noise=5.0))


@pytest.mark.parametrize(
    ("real", "fake", "expected"),
    [
        ([3, 4], [1, 2], 1.0),
        ([1, 2], [3, 4], 0.0),
        ([1, 1], [1, 1], 0.5),
        ([1, 3], [2, 2], 0.5),
        ([2, 3], [2, 1], 0.875),
    ],
)
def test_auroc_by_hand(real, fake, expected):
    assert auroc(torch.tensor(real).float(), torch.tensor(fake).float()) == expected


def test_one_bad_moment_counts_for_the_clip_and_does_not_decide_alone():
    """Ten flows, of which one is bad, below ten that are middling throughout, above ten of which half are bad."""
    one_bad, middling, half_bad = torch.full((10,), 3.0), torch.full((10,), 2.0), torch.full((10,), 3.0)
    one_bad[4], half_bad[::2] = -5.0, -5.0
    scores = [clip_score(logits).item() for logits in (middling, one_bad, half_bad)]
    assert scores == sorted(scores, reverse=True) and one_bad.mean() > middling.mean()
    assert scores[0] == pytest.approx(2.0)  # a clip that is the same throughout has its flows' logit
    assert scores[1] > one_bad.min() + 3


def test_flows_are_extracted_by_gap_and_seed():
    clip = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = GradientFlow()
    flows = extract_flows(model, clip, gaps=(1, 3), batch=4)
    assert flows.shape == (4 + 2, 2, 32, 32)
    assert torch.allclose(flows[5:], model(clip[1:2], clip[4:5]), rtol=1e-3, atol=1e-3)
    drawn = extract_flows(model, clip, gaps=(1, 3), pairs=3, seed=1)
    assert len(drawn) == 3 and torch.equal(drawn, extract_flows(model, clip, (1, 3), pairs=3, seed=1))
    with pytest.raises(ValueError, match=r"has 1 frame\(s\), expected more than 1 times the gap, 1"):
        extract_flows(model, clip[:1])


def test_flows_are_extracted_in_rows():
    clip = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = GradientFlow()
    rows = extract_flows(model, clip, gaps=(1, 2), flows=2)
    assert rows.shape == (3 + 1, 4, 32, 32)
    for row, (a, b, c) in zip(rows, ((0, 1, 2), (1, 2, 3), (2, 3, 4), (0, 2, 4)), strict=True):
        expected = model(clip[[a, b]], clip[[b, c]]).flatten(0, 1)
        assert torch.allclose(row, expected, rtol=1e-3, atol=1e-3)


def test_unusable_data_is_refused():
    good = flow_clips(3, 0, 1)
    with pytest.raises(ValueError, match=r"1 generated clip\(s\), expected at least 2"):
        train_discriminator(good, good[:1], TINY)
    with pytest.raises(ValueError, match=r"real clip 1 has shape \(2, 32, 32\)"):
        train_discriminator([good[0], good[1][0]], good, TINY)
    with pytest.raises(ValueError, match="generated clip 2 has NaN"):
        train_discriminator(good, [*good[:2], good[2] * float("nan")], TINY)
    with pytest.raises(ValueError, match="several sizes"):
        train_discriminator(good, flow_clips(3, 0, 1, size=48), TINY)
    with pytest.raises(ValueError, match="epochs is 0"):
        train_discriminator(good, good, TINY, epochs=0)
