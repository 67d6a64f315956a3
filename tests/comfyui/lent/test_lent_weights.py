"""Where ComfyUI only lends weights to the layers (dynamic VRAM), the gradient is still that which differences find.

pytest tests/comfyui/lent                              # the short selection
MOTIONPROMPT_EXHAUSTIVE=1 pytest tests/comfyui/lent    # and the whole matrix
"""

from __future__ import annotations

from itertools import product

import pytest

from scripts.comfy_server import comfyui_version
from scripts.locate import comfyuis

from .world import NATIVE, worker

BUDGETS = (1.0, 0.75, 0.5, 0.1)
CHECKPOINTS = ("off", "on")
SHORT = [
    {"budget": 1.0},
    {"budget": 0.5, "motion": "v2", "lora": True},
    {"budget": 0.1, "checkpointing": "on"},
    {"budget": 0.5, "file": "fp32", "compute": "bf16"},
    {"budget": 0.5, "control": True},
    {"budget": 0.5, "how": "streamed", "lora": True},
]
KINDS = [
    {},
    {"mode": "balanced"},
    {"mode": "fast"},
    {"lora": True},
    {"motion": "v1"},
    {"motion": "v2"},
    {"motion": "v3"},
    {"motion": "v2", "mode": "fast"},
    {"lent": "model"},
    {"lent": "model, text encoder"},
    {"file": "bf16"},
    {"file": "fp32", "compute": "bf16"},
    {"control": True},
    {"control": True, "mode": "fast"},
    {"control": True, "motion": "v2"},
    {"how": "streamed"},
    {"how": "streamed", "lora": True},
    {"how": "streamed", "control": True},
    *({"family": family, "how": how} for family in NATIVE for how in ("dynamic", "streamed")),
    *({"family": family, "lora": True, "mode": "fast"} for family in NATIVE),
]
WHOLE = [
    {"budget": budget, "checkpointing": checkpointing, **kind}
    for kind, budget, checkpointing in product(KINDS, BUDGETS, CHECKPOINTS)
]


@pytest.fixture(scope="module")
def cell(tmp_path_factory, ade_path):
    """Runs a combination in a ComfyUI that has dynamic VRAM."""
    new = [path for path in comfyuis() if (path / "comfy" / "model_prefetch.py").is_file()]
    if not new:
        pytest.skip("no ComfyUI with dynamic VRAM as of 2026 was found")
    newest = max(new, key=lambda path: [int(part) for part in comfyui_version(path).split(".")])
    base = tmp_path_factory.mktemp("lent")
    with worker(newest, base / "comfyui", base / "log.txt") as ask:
        yield ask


def assert_right(found):
    assert "error" not in found, found.get("trace")
    assert found["plain"] == [True, True], "plain sampling is not what it is without dynamic VRAM, before or after"
    assert found["autograd"] > 1e-4
    if "cosine" in found:
        assert found["cosine"] > 0.9999
    assert found["autograd"] == pytest.approx(found.get("differences", found.get("classic")), rel=0.005)


def name(options):
    return "-".join(f"{key}={value}" for key, value in options.items())


@pytest.mark.parametrize("options", SHORT, ids=name)
def test_a_few_combinations(cell, options):
    found = cell(**options)
    assert_right(found)
    assert found["lent"] > 0 or options["budget"] == 1.0


@pytest.mark.parametrize("options", [{"budget": 0.1}, {"budget": 0.5, "how": "streamed", "lora": True}], ids=name)
def test_the_estimate_is_corrected_as_where_weights_are_the_layers_own(cell, options):
    found = cell(estimate=True, **options)
    assert "error" not in found, found.get("trace")
    assert found["steps"] > 0 and found["apart"] < 1e-3 * found["changed"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("options", WHOLE, ids=name)
def test_the_whole_matrix(cell, options):
    assert_right(cell(**options))
