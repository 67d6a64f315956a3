"""The native video models in use: little memory, Cancel, previews, LoRA, each kind of guidance, training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.comfyui.test_conditioning import assert_learns
from tests.comfyui.test_interrupt import pressing_cancel
from tests.comfyui.tiny_family import TinyFamily

pytestmark = pytest.mark.inprocess

NATIVE = ("lavie", "videocrafter2", "dynamicrafter")


# One of them daily: they share the network, and what differs is in the tests of sampling and of the golden outputs.
FAMILIES = [pytest.param(name, marks=[] if name == NATIVE[0] else pytest.mark.exhaustive) for name in NATIVE]


@pytest.fixture(scope="module", params=FAMILIES)
def video(request, tiny):
    return TinyFamily(tiny.comfy, request.param, tiny.flow, tiny.discriminator)


def lora_for(weights: dict[str, torch.Tensor], names: dict[str, str], wanted: list[str]) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 for layers by their names in LoRA files."""
    generator, lora = torch.Generator().manual_seed(0), {}
    for name in wanted:
        shape = weights[names[name]].shape
        lora[f"{name}.lora_up.weight"] = 0.3 * torch.randn(shape[0], 2, generator=generator)
        lora[f"{name}.lora_down.weight"] = 0.3 * torch.randn(2, shape[1], generator=generator)
    return lora


def with_loras(video: TinyFamily, model: Any = None) -> tuple[Any, Any]:
    """MODEL and CLIP as LoraLoader makes them from a Stable Diffusion LoRA with both parts."""
    import comfy.lora
    import comfy.sd

    unet = comfy.lora.model_lora_keys_unet(video.model.model, {})
    text = comfy.lora.model_lora_keys_clip(video.clip.cond_stage_model, {})
    blocks = ("down_blocks_0_attentions_0", "mid_block_attentions_0", "up_blocks_3_attentions_2")
    wanted = [f"lora_unet_{block}_transformer_blocks_0_attn2_to_k" for block in blocks]
    lora = lora_for(video.model.model.state_dict(), unet, wanted)
    lora |= lora_for(
        video.clip.cond_stage_model.state_dict(), text, ["lora_te_text_model_encoder_layers_1_self_attn_q_proj"]
    )
    return comfy.sd.load_lora_for_models(model or video.model, video.clip, lora, 1.0, 1.0)


def test_loras_on_model_and_text_encoder_are_guided_through(video):
    before = video.stock()
    model, clip = with_loras(video)
    learnable, plain = video.prompt("a ball", clip=clip), video.encode("a ball", clip=clip)
    assert not torch.equal(plain[0][0], video.encode("a ball")[0][0])
    assert not torch.equal(video.stock(model=model), before)
    assert_learns(video, learnable, plain, model=model)
    (slope,) = video.slopes(model=model, positive=learnable, cfg=1.0, epsilon=video.epsilon)
    assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)
    assert torch.equal(video.stock(), before)


def test_with_little_memory_it_is_the_same_video_and_the_same_gradient(video):
    """Three quarters of the weights stay behind and come in layer by layer, a LoRA's patches with them."""
    from comfy.model_patcher import ModelPatcher

    class Streamed(ModelPatcher):
        def load(self, device_to=None, lowvram_model_memory=0, **how):
            super().load(device_to, self.model_size() // 4, **{**how, "full_load": False})

    def streamed() -> Any:
        with torch.inference_mode():
            made = video.tiny.FAMILY[0]()
        return Streamed(made.model, made.load_device, made.offload_device)

    def gradient(model: Any, **options: Any) -> torch.Tensor:
        return video.gradients(model=model, stop=0.25, lambda_reg=0.0, **options)[0]

    lean = streamed()
    loaded, short = with_loras(video)[0], with_loras(video, lean)[0]
    torch.testing.assert_close(video.stock(model=short), video.stock(model=loaded), rtol=1e-4, atol=1e-4)
    assert lean.model.model_lowvram
    exact = gradient(loaded)
    for checkpointing in ("off", "on"):
        found = gradient(short, checkpointing=checkpointing)
        assert float((found - exact).norm() / exact.norm()) < 1e-3


def test_cancel_stops_within_one_evaluation(video):
    import comfy.model_management as management

    before = video.stock()
    with pressing_cancel(video, video.model.model.diffusion_model.middle_block[1], 2) as evaluations_after:
        with pytest.raises(management.InterruptProcessingException):
            model, report = video.applied(iterations=2)
            video.stock(model=model, positive=video.learnable)
    assert len(evaluations_after) <= 1
    assert report.state == "interrupted"
    assert torch.equal(video.stock(), before)


def test_previews_show_the_first_frame_while_it_samples_and_while_it_guides(video, monkeypatch):
    import comfy.utils
    import latent_preview
    from comfy.cli_args import LatentPreviewMethod, args

    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Latent2RGB)
    if hasattr(latent_preview, "default_preview_method"):
        monkeypatch.setattr(latent_preview, "default_preview_method", LatentPreviewMethod.Latent2RGB)
    shown = []

    def hook(value: int, total: int, preview: Any, **_: Any) -> None:
        shown.append(preview)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    for run in (video.stock, lambda: video.guided()[0]):
        shown.clear()
        run()
        pictures = [preview[1] for preview in shown if preview is not None]
        assert len(pictures) >= 4 and all(picture.size == (8, 8) for picture in pictures)
        assert len({picture.tobytes() for picture in pictures}) > 1


@pytest.mark.parametrize("guide", ["estimate", "both"])
def test_the_estimate_is_corrected_alone_and_with_the_tokens(video, guide):
    latents, report = video.guided(guide=guide, strength=1.0, stop=0.25, steps=6)
    assert report.state == "done" and report.correction.steps and latents.isfinite().all()
    assert (report.guided == []) == (guide == "estimate")
    assert not torch.equal(latents, video.stock(steps=6))


def test_a_learnable_clip_in_stock_nodes_learns(video):
    (clip,) = video.comfy.run("MotionPromptCLIP", clip=video.clip)
    learnable = video.encode("a red ball", clip=clip)
    _, report = video.guided(positive=learnable)
    assert report.guided == [0, 1]
    assert all(iteration.grad_norm > 0 for step in report.steps for iteration in step.iterations)


def test_a_discriminator_is_trained_on_the_models_own_estimates_and_guides_it(video):
    import folder_paths

    run, name = video.comfy.run, f"mp_own_{video.family}"
    capture = {"vae": video.vae, "flow_model": video.flow, "name": name, "start": 0.0, "stop": 0.75}
    for seed in range(2):
        (model,) = run("MotionPromptCaptureFlow", model=video.model, pairs=2, max_gap=1, **capture)
        video.stock(model=model, seed=seed, cfg=1.0)
    folder = Path(folder_paths.get_output_directory(), "motionprompt", "captured", name)
    assert len(list(folder.glob("*.safetensors"))) == 2
    real = [torch.rand(6, 48, 48, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    small = {"size": [32], "pairs": [3], "gaps": ["1"], "max_frames": [6]}
    sides = {"real": [""], "generated": [""], "real_images": real, "captured": [name]}
    dataset, info = run("MotionPromptFlowDataset", flow_model=[video.flow], **sides, **small)
    assert dataset.captured == 2 and "captured" in info
    discriminator, *_ = run("MotionPromptTrainFlowDiscriminator", dataset=dataset, epochs=1)
    _, report = video.guided(discriminator=discriminator)
    assert report.state == "done" and report.steps[0].iterations[0].phi is not None
