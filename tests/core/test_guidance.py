"""The optimiser on a model small enough to know everything about."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from motionprompt_core.discriminator.model import DiscriminatorConfig, FlowDiscriminator
from motionprompt_core.flow import load_flow_model
from motionprompt_core.guidance.losses import TERMS
from motionprompt_core.guidance.objective import objective
from motionprompt_core.guidance.optimise import PromptOptimiser
from motionprompt_core.guidance.pairs import draw_pairs
from motionprompt_core.guidance.record import guide_step
from motionprompt_core.guidance.report import StepReport
from motionprompt_core.guidance.settings import GuidanceSettings
from motionprompt_core.guidance.tokens import LearnableTokens
from motionprompt_core.guidance.view import GuidedModel, View
from motionprompt_core.media.ops import laplacian

FRAMES, CHANNELS, SIZE, WIDTH = 5, 4, 4, 6


@pytest.fixture
def model():
    """Text to latents by one matrix, latents to pictures by another."""
    torch.manual_seed(0)
    to_latents = torch.randn(2 * WIDTH, FRAMES * CHANNELS * SIZE * SIZE) * 0.3
    to_pixels = torch.nn.Upsample(scale_factor=8, mode="bilinear")
    colours = torch.randn(3, CHANNELS) * 0.3
    return GuidedModel(
        encode=lambda rows: rows["l"].flatten().tanh(),
        predict_x0=lambda cond: (cond @ to_latents).reshape(FRAMES, CHANNELS, SIZE, SIZE),
        decode=lambda latents: 0.5 + torch.einsum("kc,nchw->nkhw", colours, to_pixels(latents)).sin() / 2,
        flow=load_flow_model("gradient"),
        discriminator=judge_of(1),
    )


def judge_of(flows: int) -> FlowDiscriminator:
    torch.manual_seed(3)
    return (
        FlowDiscriminator(
            DiscriminatorConfig(
                flow_model="gradient",
                img_size=32,
                patch_size=8,
                embed_dim=16,
                depth=1,
                num_heads=2,
                flows=flows,
            )
        )
        .requires_grad_(False)
        .eval()
    )


def fresh_tokens():
    return LearnableTokens({"l": torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(1))})


def run(model, settings, seed=0, steps=1, tokens=None, **options):
    tokens = tokens or fresh_tokens()
    optimiser = PromptOptimiser(tokens, settings, seed)
    reports = [StepReport(step, 1.0) for step in range(steps)]
    samples = [guide_step(optimiser, model, report, **options) for report in reports]
    return tokens, reports, samples


def test_the_loss_falls(model):
    predict = model.predict_x0
    model.predict_x0 = lambda cond: predict(cond)[:2]  # two frames have one pair, so that losses can be compared
    settings = GuidanceSettings(iterations=20, learning_rate=0.02)
    _, [report], _ = run(model, settings)
    assert report.iterations[-1].loss < report.iterations[0].loss


def test_the_tokens_are_those_of_the_first_implementation(model):
    """Fourteen settings, three steps each; the figures were made by the loop before it stood on one page."""
    cases = json.loads(Path(__file__).with_name("guidance_reference.json").read_text())
    assert len(cases) == 14
    for case in cases:
        model.discriminator = judge_of(case["flows"])
        tokens, reports, _ = run(model, GuidanceSettings(**case["settings"]), seed=7, steps=3)
        expected = torch.tensor(case["tokens"])
        assert (tokens.rows["l"] - expected).abs().max() <= 5e-7, case["settings"]
        assert (expected - tokens.initial["l"]).abs().max() > 1e-2
        losses = [iteration.loss for report in reports for iteration in report.iterations]
        assert losses == pytest.approx(case["losses"], rel=1e-4)


ALL = {term.weight: 0.2 for term in TERMS}


@pytest.mark.parametrize("weights", [*({name: 0.7} for name in ALL), ALL], ids=[*ALL, "all"])
@pytest.mark.parametrize("flows", [1, 2])
def test_the_gradient_is_the_derivative_of_the_weighted_sum(model, flows, weights):
    """Of each loss by itself and of all together, along the gradient and along a random direction."""
    model.discriminator = judge_of(flows)
    settings = GuidanceSettings(**{**dict.fromkeys(ALL, 0.0), **weights}, iterations=1, pairs=2)
    tokens = fresh_tokens()
    initial = tokens.initial["l"]
    start = 0.7 * initial  # with less motion and detail, so that what preserves them has a slope
    tokens.load({"l": start})
    found = []
    report = StepReport(0, 1.0)
    optimiser = PromptOptimiser(tokens, settings, 0, lambda _, model, groups, rows: found.append(rows[0].clone()))
    guide_step(optimiser, model, report)
    pairs = report.iterations[0].pairs
    assert all(len(pair) == flows + 1 for pair in pairs)

    @torch.no_grad()
    def loss(rows):
        estimate, reference = (model.predict_x0(model.encode({"l": r})) for r in (rows, initial))
        total, _ = objective(View(model, estimate, pairs, reference), settings)
        return float(total.double() + settings.lambda_reg * (rows - initial).double().square().sum())

    random = torch.randn(initial.shape, generator=torch.Generator().manual_seed(6))
    for direction in (found[0] / found[0].norm(), random / random.norm()):
        slope = (loss(start + 1e-3 * direction) - loss(start - 1e-3 * direction)) / 2e-3
        expected = float((found[0] * direction).sum())
        assert slope == pytest.approx(expected, rel=0.01, abs=0.01 * float(found[0].norm()))
    assert report.iterations[0].loss == pytest.approx(loss(start), rel=1e-5)
    assert found[0].norm() > 1e-3


def test_same_seed_same_tokens_whatever_the_global_generator_does(model):
    settings = GuidanceSettings()
    first, [report], _ = run(model, settings, seed=7)
    torch.manual_seed(999)
    state = torch.get_rng_state()
    again, [same], _ = run(model, settings, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.rows["l"], again.rows["l"])
    assert report.iterations == same.iterations
    _, [other], _ = run(model, settings, seed=8)
    assert [i.pairs for i in other.iterations] != [i.pairs for i in report.iterations]


def test_tokens_carry_over_from_step_to_step(model):
    predict = model.predict_x0
    model.predict_x0 = lambda cond: predict(cond)[:2]  # one pair, so that every step pulls the same way
    once, thrice = (run(model, GuidanceSettings(iterations=1), steps=steps)[0] for steps in (1, 3))
    assert thrice.drift()[0] > 2 * once.drift()[0]


def test_strength_scales_the_move(model):
    # Adam's first move is the learning rate in every coordinate.
    for strength in (0.5, 1.0):
        tokens, _, _ = run(model, GuidanceSettings(strength=strength, iterations=1, learning_rate=0.01))
        moved = (tokens.rows["l"] - tokens.initial["l"]).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.01 * strength), rtol=1e-2, atol=0)


def test_a_strong_regulariser_keeps_the_tokens_near(model):
    free, _, _ = run(model, GuidanceSettings(iterations=30, lambda_reg=0))
    held, _, _ = run(model, GuidanceSettings(iterations=30, lambda_reg=1000))
    assert held.drift()[0] < free.drift()[0] / 2


@pytest.mark.parametrize("where", ["decode", "gradient"])
def test_a_non_finite_value_leaves_the_tokens_and_says_so(model, where):
    tokens = fresh_tokens()
    settings = GuidanceSettings(iterations=3)
    decode = model.decode
    calls = Counter()

    def broken(latents):
        calls["decode"] += 1
        if calls["decode"] < 2:
            return decode(latents)
        if where == "decode":
            return decode(latents) * float("nan")
        return decode(latents) + (latents - latents.detach()).abs().sqrt().mean()  # finite, infinite slope

    model.decode = broken
    _, [report], _ = run(model, settings, tokens=tokens)
    assert "not finite" in report.fallback
    assert len(report.iterations) == 1
    assert torch.equal(tokens.rows["l"], tokens.initial["l"])


def test_an_interrupt_leaves_the_tokens_as_they_were(model):
    class Interrupted(Exception):
        pass

    for after in range(1, 9):
        tokens = fresh_tokens()
        left = [after]

        def check(left=left):
            left[0] -= 1
            if left[0] == 0:
                raise Interrupted

        model.check = check
        with pytest.raises(Interrupted):
            run(model, GuidanceSettings(), tokens=tokens)
        assert torch.equal(tokens.rows["l"], tokens.initial["l"])


def test_before_and_after_are_of_the_same_pair(model):
    _, [report], [sample] = run(model, GuidanceSettings(learning_rate=0.05), compare=True)
    assert sample.pair == report.iterations[0].pairs[0]
    assert sample.before.shape == sample.after.shape == (2, 8 * SIZE, 8 * SIZE)
    assert not torch.equal(sample.before, sample.after)


def test_pairs_are_ordered_within_the_gap_and_all_occur():
    generator = torch.Generator().manual_seed(0)
    pairs = draw_pairs(6, GuidanceSettings(pairs=500, max_gap=2), generator)
    counts = Counter(pairs)
    assert set(counts) == {(i, j) for i in range(6) for j in range(i + 1, 6) if j - i <= 2}
    assert min(counts.values()) > 500 / len(counts) / 2


def test_frames_of_several_flows_are_evenly_spaced_within_the_gap_and_all_occur():
    rows = draw_pairs(6, GuidanceSettings(pairs=500, max_gap=2), torch.Generator().manual_seed(0), num_flows=2)
    assert set(rows) == {(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 2, 4), (1, 3, 5)}


def test_one_frame_has_no_motion():
    with pytest.raises(ValueError, match="at least 2 frames"):
        draw_pairs(1, GuidanceSettings(), torch.Generator())
    with pytest.raises(ValueError, match="at least 3 frames, but the video has 2"):
        draw_pairs(2, GuidanceSettings(), torch.Generator(), num_flows=2)


def test_clipping_bounds_the_gradient_but_reports_it_whole(model):
    settings = GuidanceSettings(iterations=1, grad_clip=1e-4, lambda_reg=0)
    seen = []

    def watch(adam, *_):
        seen.extend(row.grad.norm().item() for group in adam.param_groups for row in group["params"])

    hook = register_optimizer_step_pre_hook(watch)
    try:
        _, [report], _ = run(model, settings)
    finally:
        hook.remove()
    assert seen == [pytest.approx(1e-4, rel=1e-3)]
    assert report.iterations[0].grad_norm > 1e-2


def speed(model, rows, pairs):
    with torch.no_grad():
        flow = View(model, model.predict_x0(model.encode(rows)), pairs).flow
    return flow.norm(dim=1).mean()


def calmed(model, **preserve):
    """Rows of tokens that smoothness alone has moved, and the iterations' reports."""
    settings = GuidanceSettings(
        lambda_disc=0,
        lambda_tv=10,
        lambda_reg=0,
        iterations=30,
        learning_rate=0.05,
        pairs=4,
        max_gap=1,
        **preserve,
    )
    tokens, [report], _ = run(model, settings)
    return tokens.rows, report.iterations


def test_preserve_motion_keeps_what_smoothness_would_slow_down(model):
    pairs = [(i, i + 1) for i in range(FRAMES - 1)]
    start = speed(model, fresh_tokens().rows, pairs)
    speeds, floors = {}, {}
    for weight in (0.0, 20.0):
        rows, iterations = calmed(model, preserve_motion=weight)
        speeds[weight], floors[weight] = speed(model, rows, pairs), [i.losses.get("motion") for i in iterations]
    assert speeds[0.0] < 0.8 * start < 0.9 * start < speeds[20.0]
    assert floors[0.0] == [None] * 30
    assert floors[20.0][0] == pytest.approx(0, abs=1e-5)  # the tokens are still those that it compares with
    assert all(0 <= floor < 1 for floor in floors[20.0]) and any(floors[20.0])


def detail(model, rows):
    with torch.no_grad():
        return laplacian(model.decode(model.predict_x0(model.encode(rows)))).flatten(1).std(1).mean()


def test_preserve_detail_keeps_what_smoothness_would_blur(model):
    start = detail(model, fresh_tokens().rows)
    details, lost = {}, {}
    for weight in (0.0, 20.0):
        rows, iterations = calmed(model, preserve_detail=weight)
        details[weight], lost[weight] = detail(model, rows), [i.losses.get("detail") for i in iterations]
    assert details[0.0] < 0.8 * start < 0.9 * start < details[20.0]
    assert lost[0.0] == [None] * 30
    assert lost[20.0][0] == pytest.approx(0, abs=1e-5) and any(lost[20.0])
