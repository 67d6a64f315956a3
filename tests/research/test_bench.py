"""The benchmark counts right, and its command runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from research.__main__ import main
from research.cost.demo import load, timed_sample
from research.cost.estimate import page
from research.cost.measure import Meter, Stopwatch, fused_attention, measure
from research.cost.recipes import Parts, Recipe, whole_run

ROOT = Path(__file__).resolve().parents[2]


def chain(x, weight, layers=4, checkpointed=False):
    for _ in range(layers):
        x = checkpoint(layer, x, weight, use_reentrant=False) if checkpointed else layer(x, weight)
    return x


def layer(x, weight):
    return torch.relu(torch.relu(x @ weight) @ weight)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_operations_and_bytes(device):
    x = torch.ones(64, 32, device=device, requires_grad=True)
    weight = torch.ones(32, 32, device=device)
    y, cost = measure(lambda: chain(x, weight))
    product, size = 2 * 64 * 32 * 32, 64 * 32 * 4
    assert cost.flops == 8 * product
    assert cost.kept == 8 * size  # what the relus keep; the weight needs no gradient
    _, backward = measure(lambda: torch.autograd.grad(y.sum(), x))
    assert backward.flops == 8 * product
    y, checkpointed = measure(lambda: chain(x, weight, checkpointed=True))
    assert checkpointed.kept == 4 * size
    _, backward = measure(lambda: torch.autograd.grad(y.sum(), x))
    assert backward.flops > 12 * product
    assert backward.peak < 8 * size


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_fused_attention_keeps_no_matrix_of_weights(device):
    q = torch.ones(1, 2, 64, 8, device=device, requires_grad=True)
    with fused_attention():
        _, cost = measure(lambda: F.scaled_dot_product_attention(q, q, q))
    assert cost.flops == 2 * 2 * 2 * 64 * 64 * 8
    assert cost.kept < 2 * 64 * 64 * 4


def test_a_run_is_the_sum_of_its_steps():
    plain, parts = Parts({"denoiser": 2.0}, peak=10.0), Parts({"text": 0.0, "denoiser": 3.0, "decode": 0.5, "own": 0.1})
    parts.peak = 14.0
    row = whole_run(Recipe("exact"), parts, plain, steps=50, iterations=3)
    assert row.flops == pytest.approx(100 + 11 * 3 * 3.6)
    assert row.ratio == pytest.approx(row.flops / 100)
    assert row.extra == 4.0
    pooled = whole_run(Recipe("balanced", "balanced"), parts, plain, steps=50, iterations=3)
    assert pooled.flops == pytest.approx(100 + 11 * (3 + 3 * 0.6))


@pytest.mark.slow
def test_the_command_on_the_demo_model(tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert main(["bench", "--only", "demo", "--turns", "0", "--json", str(path)]) == 0
    rows = {row["name"]: row for row in json.loads(path.read_text())["demo"]["rows"]}
    assert 1 < rows["fast"]["ratio"] < rows["balanced"]["ratio"] < rows["exact"]["ratio"]
    assert rows["exact, checkpoints"]["kept"] < rows["exact"]["kept"] / 2
    assert rows["exact, checkpoints"]["ratio"] > rows["exact"]["ratio"]
    assert "times plain" in capsys.readouterr().out


def test_a_stopwatch_shares_out_both_passes():
    """Its clock counts operations here: each part's forward and backward pass, and what is no part's."""
    x, weight = torch.ones(64, 32, requires_grad=True), torch.ones(32, 32)
    with Meter() as meter:
        watch = Stopwatch(lambda: meter.flops)
        y = watch.timed("one", lambda x: chain(x, weight, 1))(x)
        y = watch.timed("two", lambda y, z: chain(y, weight, 2) + z)(y @ weight, y)
        torch.autograd.grad(y.sum(), x)
        with torch.no_grad():
            watch.timed("two", lambda y: chain(y, weight, 1))(x)
    product = 2 * 64 * 32 * 32
    assert watch.found == {"one": 4 * product, "two": 10 * product}
    assert meter.flops == 16 * product


def test_a_samples_parts_are_all_of_it():
    pipeline = load(ROOT / "weights").pipeline
    pipeline.steps = 4
    with Meter() as meter:
        found = timed_sample(pipeline, 1, "balanced", lambda: meter.flops)
    denoiser = found["denoiser"] / (8 + 2)  # the guided step of the four goes through it forwards and backwards
    assert min(found["flow"], found["discriminator"], found["decoder"]) > 0
    # What is MotionPrompt's own is small beside the denoiser.
    assert found["text encoder"] < 0.1 * denoiser > found["flow"] + found["discriminator"]
    assert 0 <= found["other"] < 0.01 * found["total"]
    assert sum(found.values()) == pytest.approx(2 * found["total"])


def test_the_page_on_cost_is_made_of_what_was_counted() -> None:
    root = Path(__file__).resolve().parents[2]
    assert (root / "docs" / "cost.md").read_text(encoding="utf-8") == page(root / "docs" / "cost")
    rows = json.loads((root / "docs" / "cost" / "estimate.json").read_text(encoding="utf-8"))
    short = {row["autoencoder"]: row for row in rows if row["size"] == "16 frames of 512 x 512"}
    assert short["TAESD"]["times_plain"][0] < 1.06 and short["TAESD"]["correction_gib"] < 0.3
    assert short["the full VAE"]["times_plain"][0] < 1.5
    tiny = [row for row in rows if row["autoencoder"] == "TAEHV"]
    assert len(tiny) == 5 and all(row["times_plain"][0] <= 1.05 and row["beyond_gib"] <= 0.5 for row in tiny)
