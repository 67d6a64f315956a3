"""What only native video models have to show, whose latents hold several frames each: Wan 2.1 and LTX-Video."""

from __future__ import annotations

import importlib

import pytest
import torch

from tests.comfyui.tiny_family import TinyFamily


@pytest.fixture(scope="module", params=["wan", "ltx"])
def video(request, tiny):
    return TinyFamily(tiny.comfy, request.param, tiny.flow, tiny.discriminator)


@pytest.fixture
def decoder(video):
    return video.decoder()


def test_a_few_latents_show_each_frame_as_the_whole_video_does(video, decoder):
    """Nothing to tell from where all latents are in the slice; elsewhere the frame is the right one, and near."""
    shape = video.latent(8 * decoder.factor + 1)["samples"].shape
    x0 = decoder.frames_first(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    frames = decoder.num_frames(len(x0))
    with torch.inference_mode():
        whole = decoder(x0, list(range(frames)))
        shown = video.vae.decode(video.model.model.process_latent_out(x0.movedim(0, 1)[None]))[0].movedim(-1, 1)
        assert shown.shape == whole.shape
        if video.family == "wan":  # LTX-Video's VAE Decode adds other noise each time
            torch.testing.assert_close(whole.clamp(0, 1), shown, rtol=0, atol=1e-4)
        for frame in (0, 1, frames // 2, frames - 1):
            (alone,) = decoder(x0, [frame])
            distance = (whole - alone).square().mean(dim=(1, 2, 3))
            assert distance[frame] < 0.8 * distance[[other for other in range(frames) if other != frame]].min()


def test_pairs_far_apart_are_decoded_from_two_short_slices(decoder):
    factor, after = decoder.factor, decoder.after
    assert decoder.slices(20, [0, 1]) == [(0, 1 + after)]
    assert decoder.slices(20, [10 * factor, 10 * factor + 1]) == [(7, 11 + after)]
    assert decoder.slices(20, [19 * factor, 2 * factor]) == [(0, 2 + after), (16, 19)]


def test_the_decoders_noise_is_not_taken_from_the_samplers(decoder):
    x0 = torch.zeros(2, decoder.decode.vae.latent_channels, 2, 2)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with torch.inference_mode():
        pictures = [decoder(x0, [0, 1]) for _ in range(2)]
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(*pictures)


def test_a_step_that_is_tried_again_looks_at_the_same_pairs(video, monkeypatch):
    """LTX-Video changes tensors in place: without checkpoints the first attempt at the first step is in vain."""

    def pairs(checkpointing):
        _, report = video.guided(checkpointing=checkpointing, iterations=2)
        return [iteration.pairs for step in report.steps for iteration in step.iterations], report.summary()

    guidance, short = video.comfy.module("motionprompt_core.guidance.optimise"), []
    backward = guidance.backward_scaled

    def once_out_of_memory(*args, **kwargs):
        if not short:
            short.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return backward(*args, **kwargs)

    calm, _ = pairs("on")
    assert len({str(pair) for pair in calm}) > 1, "nothing to tell by"
    assert pairs("off")[0] == calm
    monkeypatch.setattr(guidance, "backward_scaled", once_out_of_memory)
    troubled, summary = pairs("off")
    assert "Memory ran out" in summary
    assert troubled == calm


def refused(video, message, **options):
    with pytest.raises(ValueError, match=message):
        video.guided(**options)


def test_what_cannot_work_is_said(video, tiny):
    several = {"samples": video.latent()["samples"].repeat(2, 1, 1, 1, 1)}
    refused(video, "2 videos.*batch_size", latent_image=several)
    flow = tiny.comfy.module("motionprompt_core.flow.raft")
    raft = tiny.comfy.module("nodes.host.models").ManagedModel(flow.RaftFlow("raft_small"))
    refused(video, "raft_small.*64x64 px.*128x128", flow_model=raft)


def test_latents_too_small_for_the_vae_are_named(tiny):
    """It was torch's error about padding, of a layer somewhere in LTX-Video's decoder."""
    video = TinyFamily(tiny.comfy, "ltx", tiny.flow, tiny.discriminator)
    with torch.inference_mode(), pytest.raises(ValueError, match="cannot decode latents of 1 x 1.*larger"):
        video.decoder()(torch.zeros(3, video.vae.latent_channels, 1, 1), [0, 1])


def test_a_reference_picture_before_the_video_is_no_frame_of_it(tiny):
    """Wan VACE puts its latent first; Trim Video Latent takes it off after sampling. It was counted and drawn."""
    import comfy.ops
    from comfy.ldm.wan.model import VaceWanModel

    video = TinyFamily(tiny.comfy, "wan", tiny.flow, tiny.discriminator)
    pack = tiny.comfy.node("TinyVideoModel").__module__
    wan = importlib.import_module(f"{pack}.wan")
    with torch.inference_mode():
        network = VaceWanModel(**wan.WAN, vace_layers=1, vace_in_dim=96, operations=comfy.ops.disable_weight_init)
        model = wan.load(network, 0)
    inputs = {"positive": video.learnable, "negative": video.negative, "vae": video.vae, "width": 64, "height": 64}
    reference = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    for picture, leading in ((reference, 1), (None, 0)):
        positive, negative, latent, trim = tiny.comfy.run(
            "WanVaceToVideo", length=17, batch_size=1, strength=1.0, reference_image=picture, **inputs
        )
        assert trim == leading and latent["samples"].shape[2] == 5 + leading
        _, report = video.guided(
            model=model, positive=positive, negative=negative, latent_image=latent, pairs=16, stop=1.0, steps=2
        )
        frames = {frame for step in report.steps for i in step.iterations for pair in i.pairs for frame in pair}
        assert max(frames) <= 16 and len(frames) > 8
