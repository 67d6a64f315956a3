"""The node Steady Motion: one slider; everything else found by itself, and said."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from tests.comfyui.tiny_hosts import TinyHost, same


@pytest.fixture(scope="module")
def host(tiny):
    return TinyHost(tiny.comfy, "wan22", tiny.flow)


@pytest.fixture
def lines(host, monkeypatch):
    """What the node shows, message by message."""
    shown = []
    view = host.comfy.module("nodes.host.status").NodeView

    class Seen(view):
        def __init__(self):
            super().__init__(None, "7")

        def show(self, text, curves=None):
            shown.append(text)

    monkeypatch.setattr(host.comfy.module("nodes.steady_motion"), "node_view", lambda node: Seen())
    return shown


def test_between_model_and_sampler_it_is_all_that_is_needed(host, lines):
    (model,) = host.comfy.run("MotionPromptSteadyMotion", model=host.model, vae=host.vae)
    assert "Waits for a sampler" in lines[0] and "the VAE that is connected" in lines[0]
    latent = host.sample(model)
    assert not same(latent, host.sample()) and same(latent, host.sample(model))
    assert "Up to 4 of 4 steps" in lines[1] and "9 frames of 32 x 32 px" in lines[1] and "GiB" in lines[1]
    assert lines[2].startswith("corrected steps: ") and "4 of 4" in lines[2]


def test_0_is_off_and_says_so(host, lines):
    (model,) = host.comfy.run("MotionPromptSteadyMotion", model=host.model, vae=host.vae, strength=0.0)
    assert same(host.sample(model), host.sample()) and lines == ["off: the video is exactly the plain one."]


def test_of_two_in_a_row_the_last_counts_and_says_so(host, lines):
    (first,) = host.comfy.run("MotionPromptSteadyMotion", model=host.model, vae=host.vae, strength=0.5)
    (second,) = host.comfy.run("MotionPromptSteadyMotion", model=first, vae=host.vae)
    (alone,) = host.comfy.run("MotionPromptSteadyMotion", model=host.model, vae=host.vae)
    told, latent = "stands in for that", host.sample(second)
    assert told in lines[-1]
    assert same(host.sample(alone), latent) and told not in lines[-1]


def test_the_models_tiny_autoencoder_is_found_and_used_in_place_of_the_vae(host, lines, monkeypatch, tmp_path):
    import folder_paths

    state = {key: value.clone().contiguous() for key, value in host.vae.first_stage_model.state_dict().items()}
    folder = tmp_path / "vae_approx"
    folder.mkdir()
    kept = folder_paths.folder_names_and_paths["vae_approx"]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae_approx", ([str(folder)], kept[1]))
    save_file(state, folder / "taehv.safetensors")  # another model's
    host.comfy.run("MotionPromptSteadyMotion", model=host.model, vae=host.vae)
    assert "the VAE that is connected" in lines[-1]
    save_file(state, folder / "lighttaew2_1.safetensors")
    folder_paths.filename_list_cache.clear()
    (model,) = host.comfy.run("MotionPromptSteadyMotion", model=host.model, vae=None)
    assert "models/vae_approx/lighttaew2_1.safetensors" in lines[-1]
    expected = host.sample(host.comfy.run("MotionPromptSteadyMotion", model=host.model, vae=host.vae)[0])
    assert same(host.sample(model), expected)
    save_file({"x": torch.zeros(1)}, folder / "lighttaew2_1.safetensors")
    with pytest.raises(ValueError, match="holds no autoencoder.*Download it again"):
        host.comfy.run("MotionPromptSteadyMotion", model=host.model, vae=host.vae)


def test_a_vae_that_only_decodes_is_not_chosen_and_refused_before_sampling(host, lines, monkeypatch):
    def process_input(image):
        raise NotImplementedError("This light tae doesn't support encoding currently")

    (model,) = host.comfy.run("MotionPromptSteadyMotion", model=host.model, vae=host.vae)
    monkeypatch.setattr(host.vae, "process_input", process_input)
    assert not host.comfy.module("nodes.host.checks").encodes(host.vae)
    with pytest.raises(ValueError, match="this VAE only decodes.*Connect the model's own VAE"):
        host.sample(model)


def test_comfyuis_optical_flow_model_is_taken(host, tmp_path, monkeypatch):
    import folder_paths
    from comfy.model_patcher import ModelPatcher
    from torchvision.models.optical_flow import raft_large

    network = raft_large(weights=None).eval()
    own = ModelPatcher(network, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))
    loader, taken = "MotionPromptLoadOpticalFlow", host.comfy.module("nodes.host.flows").managed_flow(own)
    assert taken.module.name == "raft_large" and taken.load().network is network
    assert host.comfy.run(loader, optical_flow=own)[0].module.network is network
    large = host.latent(frames=5, size=128)
    (model,) = host.comfy.run("MotionPromptSteadyMotion", model=host.model, vae=host.vae, flow_model=own)
    assert not same(host.sample(model, steps=2, latent_image=large), host.sample(steps=2, latent_image=large))
    other = ModelPatcher(torch.nn.Linear(1, 1), load_device=torch.device("cpu"), offload_device=torch.device("cpu"))
    with pytest.raises(ValueError, match="is a Linear.*torchvision's RAFT"):
        host.comfy.run("MotionPromptSteadyMotion", model=host.model, vae=host.vae, flow_model=other)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "optical_flow", ([str(tmp_path)], {".safetensors"}))
    save_file(network.state_dict(), tmp_path / "raft_large_C_T_SKHT_V2.safetensors")
    (loaded,) = host.comfy.run(loader, name="raft_large", download=False)
    assert torch.equal(next(loaded.module.network.parameters()), next(network.parameters()))


def test_a_model_that_makes_no_video_is_refused_in_words(tiny):
    (model,) = tiny.comfy.run("MotionPromptSteadyMotion", model=tiny.model, vae=tiny.vae)
    with pytest.raises(ValueError, match="one frame, and motion needs at least two"):
        tiny.stock(model=model, latent_image=tiny.latent(1))
