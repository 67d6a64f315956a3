"""The demo's training scripts run from nothing to a weight file that loads."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from motionprompt_core.demo import checkpoint, dataset, train_autoencoder, train_model, train_text
from motionprompt_core.demo.autoencoder import Autoencoder
from motionprompt_core.demo.pipeline import DemoPipeline


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
