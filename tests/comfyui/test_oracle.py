"""The oracle of every model node: guided so little that the tokens do not move, the video is the stock sampler's.

Nodes that patch the model are found in the running ComfyUI, so that new ones join by themselves.
"""

from __future__ import annotations

import pytest
import torch

# Every step is guided, but the tokens hardly move.
STILL = {"start": 0.0, "stop": 1.0, "learning_rate": 1e-5, "strength": 1e-3, "lambda_reg": 0.0}
STILL["outside_window"] = "tokens"
STEPS = 6


def far(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def compare(tiny, model) -> str:
    """ "equal", or the refusal; anything else fails."""
    try:
        stock = tiny.stock(model=model, positive=tiny.learnable, steps=STEPS)
    except Exception as error:
        return f"not for this model: {error}"
    try:
        guided, report = tiny.guided(model=model, steps=STEPS, **STILL)
    except ValueError as error:
        assert "MotionPrompt" in str(error), error
        return f"refused: {error}"
    assert far(guided, stock) < 1e-2, far(guided, stock)
    assert len(report.guided) == STEPS or report.notes or report.missed, report.summary()
    return "equal"


@pytest.mark.parametrize("node", ["EasyCache", "LazyCache"])
@pytest.mark.parametrize("first", ["cache", "guidance"])
def test_caches_do_not_take_the_guidance_s_evaluations_for_the_sampler_s(tiny, node, first):
    """The change by guidance was twelve times too large under EasyCache."""

    def cached(model):
        return tiny.comfy.run(node, model=model, reuse_threshold=0.2, start_percent=0.15, end_percent=0.95)[0]

    if first == "cache":
        assert compare(tiny, cached(tiny.model)) == "equal"
        return
    changes = []
    for around in (cached, lambda model: model):
        model, report = tiny.applied(stop=0.5)
        guided = tiny.stock(model=around(model), positive=tiny.learnable, steps=12)
        changes.append(far(guided, tiny.stock(model=around(tiny.model), steps=12)))
        assert report.guided
    assert changes[0] < 5 * changes[1]


def model_nodes(comfy) -> list[str]:
    """Nodes that make a MODEL of a MODEL and widgets alone."""
    found = []
    for name, cls in comfy.nodes.NODE_CLASS_MAPPINGS.items():
        if name.startswith(("MotionPrompt", "ADE_", "Gradient", "Tiny")) or "MODEL" not in getattr(
            cls, "RETURN_TYPES", ()
        ):
            continue
        required = cls.INPUT_TYPES().get("required", {})
        sockets = [spec[0] for spec in required.values() if isinstance(spec[0], str) and spec[0].isupper()]
        sockets = [kind for kind in sockets if kind not in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")]
        if sockets == ["MODEL"]:
            found.append(name)
    return sorted(found)


@pytest.mark.exhaustive
def test_with_every_model_node_the_video_is_the_stock_sampler_s_or_it_is_refused(tiny):
    results = {}
    for name in model_nodes(tiny.comfy):
        try:
            outputs = tiny.comfy.run(name, model=tiny.model)
        except Exception as error:  # it needs more than a model
            results[name] = f"not made: {error}"
            continue
        try:
            results[name] = compare(tiny, outputs[0])
        except AssertionError as error:
            results[name] = f"WRONG {error}"
    equal = [name for name, result in results.items() if result == "equal"]
    wrong = {name: result for name, result in results.items() if result.startswith("WRONG")}
    assert not wrong, wrong
    assert len(equal) >= 10, results
