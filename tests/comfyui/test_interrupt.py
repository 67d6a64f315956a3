"""Cancel stops a guided run wherever it is, within one evaluation, and leaves nothing behind."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch


@contextmanager
def pressing_cancel(tiny, module, call):
    """Presses Cancel when `module` runs for the `call`-th time; yields a list of the UNet evaluations after that."""
    import comfy.model_management as management

    after: list[int] = []
    calls = [0]
    pressed = [False]
    unet = tiny.model.model.diffusion_model

    def press(*_):
        calls[0] += 1
        if calls[0] == call:
            pressed[0] = True
            management.interrupt_current_processing(True)

    def count(*_):
        if pressed[0]:
            after.append(1)

    hooks = [unet.register_forward_hook(count), module.register_forward_pre_hook(press)]
    try:
        yield after
    finally:
        for hook in hooks:
            hook.remove()
        management.interrupt_current_processing(False)


PLACES = {
    "text encoding": lambda tiny: (tiny.clip.cond_stage_model.clip_l.transformer, 1),
    "the UNet's forward pass": lambda tiny: (tiny.model.model.diffusion_model.middle_block[1], 1),
    "a later iteration": lambda tiny: (tiny.model.model.diffusion_model.middle_block[1], 2),
    "decoding": lambda tiny: (tiny.vae.first_stage_model.decoder, 1),
    "the flow model": lambda tiny: (tiny.flow.module, 1),
    "the discriminator": lambda tiny: (tiny.discriminator.module, 2),
}


@pytest.mark.parametrize("place", PLACES)
def test_cancel_stops_within_one_evaluation_and_leaves_nothing(tiny, place):
    import comfy.model_management as management

    before = tiny.stock()
    report = tiny.applied()[1]
    with pressing_cancel(tiny, *PLACES[place](tiny)) as evaluations_after:
        with pytest.raises(management.InterruptProcessingException):
            model, report = tiny.applied(iterations=2)
            tiny.stock(model=model, positive=tiny.learnable)
    assert len(evaluations_after) <= 1
    assert report.state == "interrupted"
    assert torch.equal(tiny.stock(), before)


def test_cancel_during_the_backward_pass(tiny):
    import comfy.model_management as management

    before = tiny.stock()
    pressed = []

    def press(gradient):
        if not pressed:
            pressed.append(True)
            management.interrupt_current_processing(True)
        return gradient

    def watch(module, inputs, output):
        if output.requires_grad and not pressed:
            output.register_hook(press)

    hook = tiny.model.model.diffusion_model.middle_block[1].register_forward_hook(watch)
    try:
        with pytest.raises(management.InterruptProcessingException):
            tiny.guided(iterations=3)
        assert pressed
    finally:
        hook.remove()
        management.interrupt_current_processing(False)
    assert torch.equal(tiny.stock(), before)


def test_a_failed_run_leaves_nothing(tiny):
    before = tiny.stock()

    def fail(*_):
        raise RuntimeError("out of luck")

    for module in (tiny.flow.module, tiny.vae.first_stage_model.decoder, tiny.clip.cond_stage_model.clip_l.transformer):
        model, report = tiny.applied(checkpointing="on")
        hook = module.register_forward_pre_hook(fail)
        try:
            with pytest.raises(RuntimeError, match="out of luck"):
                tiny.stock(model=model, positive=tiny.learnable)
        finally:
            hook.remove()
        assert report.state == "failed"
        assert "out of luck" in report.summary()
        assert torch.equal(tiny.stock(), before)


def test_cancel_while_the_sampler_is_asked_what_it_takes_over(tiny):
    """Of 10,000 steps that took minutes, and nothing could stop it."""
    import comfy.model_management as management

    evaluations = []
    hook = tiny.model.model.diffusion_model.register_forward_pre_hook(lambda *_: evaluations.append(1))
    model, report = tiny.applied(guide="estimate")
    management.interrupt_current_processing(True)
    try:
        with pytest.raises(management.InterruptProcessingException):
            tiny.stock(model=model, positive=tiny.learnable)
    finally:
        hook.remove()
        management.interrupt_current_processing(False)
    assert not evaluations
    assert report.state == "interrupted"
