"""What the run itself watches over while it differentiates through ComfyUI's layers; see nodes/host/lent.py.

That gradients are right where weights are really lent is tested in lent/.
"""

from __future__ import annotations

import threading

import pytest
import torch


@pytest.fixture
def lent(tiny):
    return tiny.comfy.module("nodes.host.lent")


@pytest.fixture
def linear(monkeypatch):
    """Replaces the forward of ComfyUI's linear layers."""
    import comfy.ops

    def replace(forward):
        monkeypatch.setattr(comfy.ops.disable_weight_init.Linear, "forward", forward)

    return replace


def replaced_state():
    import comfy.model_management
    import comfy.ops

    return comfy.ops.cast_bias_weight, getattr(comfy.model_management, "in_training", None)


def test_a_core_function_of_another_shape_is_named(tiny, monkeypatch):
    import comfy.ops

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", lambda layer, prologue=None: None)
    with pytest.raises(RuntimeError, match=r"comfy\.ops\.cast_bias_weight.* takes \(layer, prologue=None\)"):
        tiny.guided()


def test_a_core_function_that_another_pack_wraps_is_accepted(tiny, monkeypatch):
    import comfy.ops

    original = comfy.ops.cast_bias_weight
    monkeypatch.setattr(comfy.ops, "cast_bias_weight", lambda *args, **kwargs: original(*args, **kwargs))
    assert tiny.guided()[1].guided == [0, 1]


def test_a_layer_with_a_backward_pass_of_its_own_is_named(tiny, linear):
    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx, given, weight, bias):
            ctx.save_for_backward(weight)
            return torch.nn.functional.linear(given, weight, bias)

        @staticmethod
        def backward(ctx, gradient):
            return gradient @ ctx.saved_tensors[0], None, None

    linear(lambda self, given: Fused.apply(given, self.weight, self.bias).reshape(*given.shape[:-1], -1))
    with pytest.raises(RuntimeError, match=r"Linear\.forward has a backward pass of its own, .*Fused"):
        tiny.guided()
    assert torch.isfinite(tiny.stock()).all()


def test_a_layer_that_cuts_the_gradient_is_named(tiny, linear):
    linear(lambda self, given: torch.nn.functional.linear(given.detach(), self.weight, self.bias))
    with pytest.raises(RuntimeError, match=r"Linear\.forward gives a result without a gradient"):
        tiny.guided()


def test_a_kernel_without_a_backward_pass_is_named(tiny, linear):
    library = torch.library.Library("motionprompt_test", "DEF")
    library.define("fused(Tensor given, Tensor weight) -> Tensor")
    library.impl("fused", lambda given, weight: given.detach() @ weight.detach().T, "CPU")
    linear(lambda self, given: torch.ops.motionprompt_test.fused(given, self.weight))
    with pytest.raises(RuntimeError, match=r"kernel motionprompt_test\.fused"):
        tiny.guided()


def test_a_lent_weight_that_comes_by_another_way_is_named(tiny, linear, lent):
    """As where a newer ComfyUI does not call `cast_bias_weight` any more."""
    linear(lambda self, given: torch.nn.functional.linear(given, self.weight, self.bias))
    layer = next(m for m in tiny.model.model.modules() if type(m).__name__ == "Linear")
    layers = [m for m in tiny.model.model.modules() if isinstance(m, type(layer))]
    for layer in layers:
        layer._v = None
    try:
        with pytest.raises(RuntimeError, match=r"by another way than comfy\.ops\.cast_bias_weight"):
            tiny.guided()
    finally:
        for layer in layers:
            del layer._v


def test_memory_that_is_not_pytorchs_own_is_copied(tiny, lent):
    memory = bytearray(64)
    weight = torch.frombuffer(memory, dtype=torch.float32)
    given = torch.ones(16, requires_grad=True)
    gradients = tiny.comfy.module("nodes.host.gradients")
    with gradients.differentiable([]):
        weight += 2.0
        product = (given * weight).sum()
        weight.fill_(7.0)  # the memory is somebody else's now
        (found,) = torch.autograd.grad(product, given)
    assert torch.equal(found, torch.full((16,), 2.0))


def test_weights_that_changed_in_between_are_noticed(tiny):
    import comfy.ops

    layer = comfy.ops.manual_cast.Linear(4, 4, dtype=torch.float16)
    layer.weight.data.normal_()
    layer.bias.data.zero_()
    given = torch.ones(4, requires_grad=True)
    with tiny.comfy.module("nodes.host.gradients").differentiable([layer]):
        right = layer(given).sum()
        assert torch.allclose(torch.autograd.grad(right, given)[0], layer.weight.float().sum(0))
        wrong = layer(given).sum()
        layer.weight.mul_(2)
        with pytest.raises(RuntimeError, match="changed between the evaluation of the model and its gradient"):
            torch.autograd.grad(wrong, given)


def test_all_is_undone_whatever_happens_and_in_whatever_order(tiny):
    differentiable = tiny.comfy.module("nodes.host.gradients").differentiable
    before, network = replaced_state(), tiny.model.model
    with pytest.raises(KeyError), differentiable([network]):
        assert replaced_state() != before
        raise KeyError
    assert replaced_state() == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())

    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with differentiable([]):
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with differentiable([]):
        thread.start()
        assert entered.wait(60)
    assert replaced_state() != before  # the other is not done
    leave.set()
    thread.join()
    assert replaced_state() == before


def test_what_comfyui_notes_on_a_weight_is_on_its_stand_in_too(tiny):
    """Dynamic VRAM notes there in which type it wants the weight."""
    with torch.inference_mode():
        layer = torch.nn.Linear(2, 2)
    layer.weight._model_dtype = torch.bfloat16
    own = layer.weight
    with tiny.comfy.module("nodes.host.gradients").differentiable([layer]):
        assert layer.weight is not own and layer.weight._model_dtype == torch.bfloat16
    assert layer.weight is own


def kept_bytes(tiny, model) -> int:
    """What the graph of one evaluation keeps, without the parameters themselves."""
    gradients = tiny.comfy.module("nodes.host.gradients")
    network, kept = model.model.diffusion_model, {}

    def note(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with gradients.differentiable([model.model]), torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        latents = torch.randn(2, 4, 8, 8)
        context = torch.randn(2, 77, 64, requires_grad=True)
        out = network(latents, torch.ones(2), context=context)
        alive = sum(kept.values())
        out.sum().backward()
    assert context.grad.abs().sum() > 0
    return alive


def test_weights_that_are_cast_do_not_wait_for_the_backward_pass(tiny):
    import sys

    models = sys.modules[f"{tiny.comfy.node('TinyVideoModel').__module__}.models"]
    with torch.inference_mode():
        cast = models.tiny_model(0, torch.float16, torch.float32)
    weights = sum(parameter.numel() * 4 for parameter in cast.model.diffusion_model.parameters())
    more = kept_bytes(tiny, cast) - kept_bytes(tiny, tiny.model)
    assert weights > 30e6 and more < 0.02 * weights


def test_copies_of_the_model_on_other_devices_are_left_alone_while_differentiating(tiny):
    """ComfyUI runs them in threads, to which our contexts do not reach."""
    options = {"multigpu_clones": {"cuda:1": object()}, "transformer_options": {"kept": 1}}
    found = tiny.comfy.module("nodes.host.gradients").gradient_options(options)
    assert "multigpu_clones" not in found and found["transformer_options"]["kept"] == 1
    assert "multigpu_clones" in options


def test_a_learnable_clip_is_cloned_as_newer_versions_ask(tiny, monkeypatch):
    """Set CLIP Hooks does, since 0.16."""
    import comfy.sd

    asked = []
    original = comfy.sd.CLIP.clone

    def clone(self, **core):
        asked.append(core)
        return original(self)

    monkeypatch.setattr(comfy.sd.CLIP, "clone", clone)
    (clip,) = tiny.comfy.run("MotionPromptCLIP", clip=tiny.clip)
    asked.clear()
    assert type(clip.clone(disable_dynamic=True)) is type(clip)
    assert {"disable_dynamic": True} in asked


def test_our_networks_have_the_patcher_that_comfyui_uses_for_its_own(tiny, monkeypatch):
    """With dynamic VRAM one of another kind has all models moved by estimates."""
    import comfy.model_patcher

    class Dynamic(comfy.model_patcher.ModelPatcher):
        def get_free_memory(self, device):
            return 12345

    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", Dynamic, raising=False)
    models = tiny.comfy.module("nodes.host.models")
    patcher = models.ManagedModel(torch.nn.Linear(2, 2)).patcher
    assert type(patcher) is Dynamic
    assert models.free_memory(patcher) == 12345
    monkeypatch.delattr(comfy.model_patcher, "CoreModelPatcher")
    assert type(models.ManagedModel(torch.nn.Linear(2, 2)).patcher) is comfy.model_patcher.ModelPatcher


def test_memory_for_gradients_of_animatediff_is_what_was_counted(tiny, monkeypatch):
    """SD1.5 with a motion module, 16 frames of 512 px, fp16, fused attention: 18.3 GiB, with checkpoints 2.84."""
    from types import SimpleNamespace

    import comfy.model_management

    memory = tiny.comfy.module("nodes.host.memory")
    family = tiny.comfy.module("nodes.host.families.base").ModelFamily
    run = SimpleNamespace(
        shape=(16, 4, 64, 64),
        windows=None,
        family=family,
        decoder=SimpleNamespace(memory=lambda *_: 0.0),
        guidance=SimpleNamespace(num_flows=1),
        settings=SimpleNamespace(pairs=1),
    )
    monkeypatch.setattr(tiny.model.model, "get_dtype", lambda: torch.float16)
    monkeypatch.setattr(tiny.model.model, "get_dtype_inference", lambda: torch.float16, raising=False)
    for fused in (True, False):
        monkeypatch.setattr(comfy.model_management, "pytorch_attention_flash_attention", lambda fused=fused: fused)
        found = [memory.gradient_memory(tiny.model, run, checkpointed) / 2**30 for checkpointed in (False, True)]
        assert found == pytest.approx([18.3, 2.84], rel=0.05)


@pytest.mark.parametrize("node, options", [("TomePatchModel", {"ratio": 0.5}), ("HyperTile", {"tile_size": 32})])
def test_checkpoints_draw_the_same_random_numbers_again(tiny, node, options):
    (model,) = tiny.comfy.run(node, model=tiny.model, **options)

    def gradient(checkpointing):
        torch.manual_seed(0)
        return tiny.gradients(model=model, stop=0.25, checkpointing=checkpointing, latent_image=tiny.latent(2))[0]

    off, again, on = (gradient(how) for how in ("off", "off", "on"))
    assert torch.equal(off, again)
    assert float((on - off).norm() / off.norm()) < 1e-4
