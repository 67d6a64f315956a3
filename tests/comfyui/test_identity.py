"""Off is exactly off, the same seed is exactly the same, and nothing stays behind."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.every_version


@pytest.mark.parametrize("off", [{"strength": 0.0}, {"start": 0.5, "stop": 0.5}], ids=["strength", "window"])
@pytest.mark.parametrize("cfg", [1.0, 7.0])
def test_switched_off_it_is_the_stock_ksampler_on_the_plain_prompt(tiny, off, cfg):
    latents, report = tiny.guided(cfg=cfg, **off)
    assert torch.equal(latents, tiny.stock(cfg=cfg))
    assert report.state == "off"
    assert report.guided == []


def test_switched_off_stochastic_samplers_draw_the_same_noise(tiny):
    options = {"sampler_name": "dpmpp_2m_sde", "scheduler": "karras"}
    assert torch.equal(tiny.guided(strength=0.0, **options)[0], tiny.stock(**options))


def test_guided_it_is_another_video(tiny):
    latents, report = tiny.guided()
    assert report.guided == [0, 1]
    assert not torch.equal(latents, tiny.stock())


def test_same_seed_same_video_whatever_the_global_generators_do(tiny):
    first, report = tiny.guided(iterations=2)
    torch.manual_seed(12345)
    torch.rand(7)
    again, same = tiny.guided(iterations=2)
    assert torch.equal(first, again)
    assert [step.iterations for step in report.steps] == [step.iterations for step in same.steps]


def test_another_seed_looks_at_other_pairs(tiny):
    options = {"iterations": 4, "latent_image": tiny.latent(6)}
    pairs = [[i.pairs for s in tiny.guided(seed=seed, **options)[1].steps for i in s.iterations] for seed in (1, 2)]
    assert pairs[0] != pairs[1]


def test_the_patch_does_what_the_sampler_node_does(tiny):
    model, report = tiny.applied()
    assert report.state == "waiting"
    assert torch.equal(tiny.stock(model=model, positive=tiny.learnable), tiny.guided()[0])
    assert report.guided == [0, 1]


def test_a_kept_patch_starts_afresh_each_time(tiny):
    model, report = tiny.applied()
    first = tiny.stock(model=model, positive=tiny.learnable)
    again = tiny.stock(model=model, positive=tiny.learnable)
    assert torch.equal(first, again)
    assert report.guided == [0, 1]


def test_afterwards_nothing_is_changed(tiny):
    before = tiny.stock()
    weights = {name: id(weight) for name, weight in tiny.model.model.named_parameters()}
    tiny.guided(checkpointing="on")
    assert torch.equal(tiny.stock(), before)
    assert {name: id(weight) for name, weight in tiny.model.model.named_parameters()} == weights
    assert not tiny.model.additional_models
    assert not tiny.model.wrappers
    assert "memory_required" not in vars(tiny.model.model)


def test_outside_the_window_the_tokens_can_stay(tiny):
    plain, _ = tiny.guided(stop=0.25)
    stay, _ = tiny.guided(stop=0.25, outside_window="tokens")
    assert not torch.equal(plain, stay)


def test_checkpointing_does_not_change_the_gradient(tiny):
    assert tiny.checkpointing_error() < 1e-4


def test_the_loss_on_the_mixed_estimate_is_another_one(tiny):
    cond, cfg = (tiny.guided(loss_on=on, cfg=7.0)[1].steps[0].iterations[0] for on in ("cond", "cfg"))
    assert cond.loss != cfg.loss
    same = [tiny.guided(loss_on=on, cfg=1.0)[1].steps[0].iterations[0].loss for on in ("cond", "cfg")]
    assert same[0] == same[1]
