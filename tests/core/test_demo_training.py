"""The demo's training scripts run from nothing to a weight file that loads."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from motionprompt_core.demo import (
    checkpoint,
    dataset,
    train_autoencoder,
    train_discriminator,
    train_model,
    train_text,
    tweedie,
)
from motionprompt_core.demo.autoencoder import Autoencoder
from motionprompt_core.demo.pipeline import DemoPipeline
from motionprompt_core.discriminator import load_discriminator
from motionprompt_core.flow import load_flow_model


@pytest.fixture(scope="module")
def run(tmp_path_factory, repo_root):
    """A run with one small shard, by the autoencoder that is shipped."""
    folder = tmp_path_factory.mktemp("run")
    shipped = checkpoint.load_demo_weights(repo_root / "weights" / "demo_video_model.safetensors").autoencoder
    assert isinstance(shipped, Autoencoder)
    save_file(shipped.state_dict(), folder / "autoencoder.safetensors")
    assert train_autoencoder.load(folder) is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "CLIPS_PER_SHARD", 8)
        dataset.write_shard(folder, 0)
    return folder


def test_the_text_encoder_learns_the_words(run, capsys):
    encoder, velocity = train_text.train(60, size=32)
    ids, _, directions = train_text.batch(64, torch.Generator().manual_seed(1))
    read = velocity(encoder(ids).mean(dim=1)) / train_text.HALF_WAY
    assert (read - directions).square().mean() < 0.5 * directions.square().mean()


def test_the_stages_follow_each_other_to_a_weight_file(run):
    layers = {f"text.{k}": v for k, v in train_text.text.TextEncoder().state_dict().items()}
    save_file(layers, run / "text.safetensors")
    for stage in ("image", "motion", "video"):
        trainer = train_model.Trainer(run, stage, steps=2)
        trainer.batch = 2
        before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
        trainer.train()
        after = trainer.model.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("text."))
        assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith("unet."))
    assert train_model.Trainer(run, "video", steps=2).step == 2  # goes on from its checkpoint
    checkpoint.export(run, "video", run / "out.safetensors", {"stage": "video"})
    pipeline = DemoPipeline(checkpoint.load_demo_weights(run / "out.safetensors"), steps=1, frames=2)
    assert pipeline.sample("a red star", 0)[0].shape == (2, 3, 128, 128)


@pytest.fixture
def short_sampling(monkeypatch, repo_root):
    """The shipped demo model with few frames and steps, in place of the one that collects the discriminator's data."""
    weights = checkpoint.load_demo_weights(repo_root / "weights" / "demo_video_model.safetensors")
    networks = load_flow_model("rife_v4.0"), DemoPipeline(weights, steps=3, frames=5)
    monkeypatch.setattr(train_discriminator, "networks", lambda weights: networks)
    monkeypatch.setattr(train_discriminator, "STEPS", (1, 2))
    monkeypatch.setattr(train_discriminator, "ESTIMATES_PER_CLIP", 2)


def test_the_discriminators_sides_show_the_same_steps(short_sampling, tmp_path):
    for seed in range(4):
        flows = train_discriminator.flows_of_seed(seed, "")
        assert {name.split(".")[1] for name in flows} == {"finished", "01", "02"}
        assert all(torch.isfinite(flow).all() and flow.shape[1:] == (2, 128, 128) for flow in flows.values())
        save_file(flows, tmp_path / f"{seed}.safetensors")
    files = sorted(tmp_path.glob("*.safetensors"))
    for estimates, count in ((True, 12), (False, 6)):
        real, fake = train_discriminator.sides(files, estimates)
        assert [len(flow) for flow in real] == [len(flow) for flow in fake] == 4 * [count]
    again = train_discriminator.flows_of_seed(3, "")
    assert all(torch.equal(again[name], flow) for name, flow in flows.items())


def test_a_discriminator_is_judged_by_part_of_the_schedule(tmp_path, repo_root):
    shipped = load_discriminator(repo_root / "weights" / "demo_discriminator.safetensors")
    generator = torch.Generator().manual_seed(0)
    for seed in range(3):
        still = torch.zeros(2, 2, 128, 128)
        noise = 6 * torch.randn(still.shape, generator=generator)
        save_file({"real.07": still, "faulty.07": noise, "generated.07": still.clone(),
                   "real.finished": still.clone(), "faulty.finished": noise.clone(), "generated.finished": noise.clone()},
                  tmp_path / f"{seed}.safetensors")
    scores = tweedie.scores(shipped, sorted(tmp_path.glob("*.safetensors")))
    assert len(scores["real", "steps 5-8"]) == 3 and scores["real", "steps 9-12"] == []
    assert scores["real", "steps 5-8"] == scores["generated", "steps 5-8"] != scores["faulty", "steps 5-8"]
