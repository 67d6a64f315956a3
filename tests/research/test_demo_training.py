"""The demo's training scripts run from nothing to a weight file that loads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from motionprompt_core.demo import checkpoint
from motionprompt_core.demo.autoencoder import Autoencoder
from motionprompt_tools import world
from research.demo import dataset, export, train_autoencoder, train_discriminator, train_model, train_text, tweedie
from research.demo.pipeline import DemoPipeline


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
    layers = {f"text.{k}": v for k, v in train_text.TextEncoder().state_dict().items()}
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
    export.export(run, "video", run / "out.safetensors", {"stage": "video"})
    pipeline = DemoPipeline(checkpoint.load_demo_weights(run / "out.safetensors"), steps=1, frames=2)
    assert pipeline.sample("a red star", 0)[0].shape == (2, 3, 128, 128)


@pytest.fixture
def short_sampling(monkeypatch, repo_root):
    """The shipped demo model with few frames and steps, in place of the one that makes the discriminator's data."""
    weights = checkpoint.load_demo_weights(repo_root / "weights" / "demo_video_model.safetensors")
    short = DemoPipeline(weights, steps=3, frames=5)
    monkeypatch.setattr(train_discriminator, "demo_model", lambda weights_file: short)
    monkeypatch.setattr(train_discriminator, "STEPS", (1, 2))
    monkeypatch.setattr(tweedie, "PARTS", ("01", "02", "finished"))


def test_the_discriminators_sides_show_the_same_steps(short_sampling, tmp_path):
    (tmp_path / "estimates").mkdir()
    (tmp_path / "flows").mkdir()
    for seed in range(3):
        train_discriminator.write_flows(seed, "", tmp_path)
    files = train_discriminator.collect(tmp_path, "", 3, workers=1, first_seed=0)  # nothing is left to do
    for names, count in ((("01", "02", "finished"), 12), (("finished",), 4)):
        real, fake = train_discriminator.sides(files, names)
        assert [len(flow) for flow in real] == [len(flow) for flow in fake] == 3 * [count]
        assert all(torch.isfinite(flow).all() and flow.shape[1:] == (2, 128, 128) for flow in real + fake)
    # Flows are made anew from the estimates that are there, the same ones.
    before = files[0].read_bytes()
    files[0].unlink()
    train_discriminator.write_flows(0, "", tmp_path)
    assert files[0].read_bytes() == before
    result = train_discriminator.train(files, train_discriminator.CONFIG, 1, ("01", "finished"))
    table = tweedie.auroc_by_part({"new": result.model}, files)
    assert table["held_out_clips"] == 3
    found = [table[part][side]["new"]["auroc"] for part in tweedie.PARTS for side in ("faulty", "generated")]
    assert all(0 <= value <= 1 for value in found)


def test_a_clips_faulty_twin_differs_in_nothing_but_faults():
    generator = torch.Generator().manual_seed(0)
    clip = world.random_clip(generator, fault_share=0)
    twin = train_discriminator.faulty_twin(clip, generator)
    assert twin.faulty and not clip.faulty
    assert replace(twin, jitter=0.0, pulse=0.0, flicker=0.0) == clip
