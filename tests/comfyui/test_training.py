"""From clips to a discriminator inside ComfyUI: what is read, trained, kept when cancelled, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.core.test_clips import drifting

SMALL = {"size": [32], "pairs": [3], "gaps": ["1"], "max_frames": [6]}


def batch(speed: float, jitter: float = 0.0, seed: int = 0) -> torch.Tensor:
    """A clip as ComfyUI's IMAGE, (6, 48, 48, 3)."""
    return drifting(6, speed, jitter, seed, size=48).movedim(1, -1)


@pytest.fixture
def folders(comfy):
    import folder_paths

    return {name: Path(getattr(folder_paths, f"get_{name}_directory")()) for name in ("input", "output")}


@pytest.fixture
def flow(comfy):
    return comfy.run("GradientFlow")[0]


def dataset_of(comfy, flow, **inputs):
    sides = {"real": [""], "generated": [""]}
    return comfy.run("MotionPromptFlowDataset", flow_model=[flow], **{**sides, **SMALL, **inputs})


@pytest.fixture
def dataset(comfy, flow):
    real = [batch(0.5 + 0.2 * i, seed=i) for i in range(4)]
    generated = [batch(0.5 + 0.2 * i, 2.0, seed=i) for i in range(4)]
    return dataset_of(comfy, flow, real_images=real, generated_images=generated)[0]


def train(comfy, dataset, **options):
    return comfy.run("MotionPromptTrainFlowDiscriminator", dataset=dataset, **{"epochs": 2, **options})


def test_clips_come_from_folders_and_from_the_graph(comfy, flow, folders):
    from motionprompt_tools.writing import write_video

    for number in range(2):
        write_video(drifting(8, 1 + number), folders["input"] / "mp_real" / f"{number}.mp4")
    (folders["input"] / "mp_real" / "text.mp4").write_text("no video")
    found, info = dataset_of(comfy, flow, real=["mp_real"], generated_images=[batch(1), batch(2, 1.0)])
    assert (len(found.real), len(found.generated)) == (2, 2)
    assert "real: 2 clips, 1 skipped" in info and "text.mp4" in info


@pytest.mark.parametrize("name", ["../..", "../../etc", "/etc", "/", "C:\\Windows"])
def test_a_folder_elsewhere_is_not_read(comfy, flow, name):
    with pytest.raises((ValueError, FileNotFoundError), match=r"outside of ComfyUI's|there is no folder") as caught:
        dataset_of(comfy, flow, real=[name], generated_images=[batch(1)])
    if name.startswith(("/", "..")):
        assert "outside of ComfyUI's input, output and models" in str(caught.value)


def test_a_full_path_inside_the_folders_is_read(comfy, flow, folders):
    readable = comfy.module("nodes.host.training").readable_folder
    inside = folders["output"] / "mp_deep" / "clips"
    inside.mkdir(parents=True, exist_ok=True)
    assert readable(str(inside), "clips") == inside == readable("mp_deep/clips", "clips")
    with pytest.raises(ValueError, match="outside"):
        readable(str(inside / ".." / ".." / ".." / ".."), "clips")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"generated_images": [batch(1)]}, "there are no real clips"),
        ({"real_images": [batch(1)]}, "there are no generated clips"),
        ({"real_images": [batch(1)], "generated_images": [batch(1)[:1]]}, r"has 1 frame\(s\)"),
        ({"real_images": [batch(1)], "generated_images": [batch(1)], "gaps": ["one"]}, "gaps are 'one'"),
        ({"real": ["mp_nowhere"], "generated_images": [batch(1)]}, "there is no folder 'mp_nowhere'"),
        ({"real_images": [batch(1)], "flows": [2], "captured": ["mp"]}, "flows is 2, but captured estimates"),
    ],
)
def test_bad_input_is_named_before_any_work(comfy, flow, inputs, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        dataset_of(comfy, flow, **inputs)


def test_an_empty_folder_is_named(comfy, flow, folders):
    (folders["input"] / "mp_empty").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="mp_empty holds no clip"):
        dataset_of(comfy, flow, real=["mp_empty"], generated_images=[batch(1)])


def test_what_is_trained_is_saved_listed_and_guides(tiny, dataset):
    comfy = tiny.comfy
    discriminator, plot, info = train(comfy, dataset, family="stripes")
    assert "AUROC" in info and plot.shape[0] == 1 and plot.std() > 0.01
    _, file = comfy.run(
        "MotionPromptSaveFlowDiscriminator", discriminator=discriminator, filename="mp test", trained_on="stripes, free"
    )
    import folder_paths

    folder_paths.filename_list_cache.pop("motionprompt", None)
    loaded, about = comfy.run("MotionPromptLoadFlowDiscriminator", name=file)
    assert all(text in about for text in ("model family: stripes", "trained on: stripes, free", "flow model: gradient"))
    assert loaded.module.metadata["real_clips"] == 4
    _, report = tiny.guided(discriminator=loaded)
    assert report.state == "done" and report.steps[0].iterations[0].phi is not None
    _, again = comfy.run(
        "MotionPromptSaveFlowDiscriminator", discriminator=discriminator, filename="mp test", trained_on=""
    )
    assert file == "mp test.safetensors" and again == "mp test_2.safetensors"


def test_a_discriminator_of_two_flows_is_trained_and_guides(tiny, flow):
    sides = {
        f"{side}_images": [batch(0.5 + 0.2 * i, jitter, seed=i) for i in range(3)]
        for side, jitter in (("real", 0.0), ("generated", 2.0))
    }
    dataset, _ = dataset_of(tiny.comfy, flow, flows=[2], **sides)
    discriminator, _, _ = train(tiny.comfy, dataset)
    assert discriminator.module.config.flows == 2
    _, report = tiny.guided(discriminator=discriminator, flow_model=flow)
    assert report.state == "done" and len(report.steps[0].iterations[0].pairs[0]) == 3


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a\nb", "a\u202eb", "CON", "nul.x", "dot.", "x" * 201])
def test_a_file_name_cannot_leave_the_folder(comfy, dataset, tiny, name):
    with pytest.raises(ValueError, match="is no name for a file"):
        comfy.run("MotionPromptSaveFlowDiscriminator", discriminator=tiny.discriminator, filename=name, trained_on="")


def test_a_family_that_names_no_file_is_refused_before_any_work(comfy, dataset):
    """Cancel saves the best so far under it."""
    with pytest.raises(ValueError, match="family: 'sd15/animatediff' is no name for a file"):
        comfy.run("MotionPromptTrainFlowDiscriminator", dataset=dataset, family="sd15/animatediff")


def test_cancelling_keeps_the_best_and_the_next_run_goes_on(comfy, dataset, monkeypatch):
    import folder_paths
    from comfy import model_management as management
    from comfy import utils

    seen = []

    class Bar(utils.ProgressBar):
        cancel_at = 1

        def update_absolute(self, value, total=None, preview=None):
            super().update_absolute(value, total, preview)
            if preview is not None:
                seen.append(preview)
                if len(seen) == self.cancel_at:
                    management.interrupt_current_processing(True)

    monkeypatch.setattr(utils, "ProgressBar", Bar)
    try:
        with pytest.raises(management.InterruptProcessingException):
            train(comfy, dataset, epochs=3, family="mp_cancelled")
    finally:
        management.interrupt_current_processing(False)
    kept = Path(folder_paths.models_dir) / "motionprompt" / "mp_cancelled_interrupted.safetensors"
    assert kept.is_file()
    Bar.cancel_at = 0
    before = len(seen)
    _, _, info = train(comfy, dataset, epochs=3, family="mp_cancelled")
    assert len(seen) - before == 2, "the epoch that was done is not done again"
    assert seen[0][0] == "JPEG" and seen[0][1].width > 100
    assert "AUROC" in info


def test_estimates_are_captured_without_changing_the_video(tiny, folders):
    comfy = tiny.comfy
    inputs = {"vae": tiny.vae, "flow_model": tiny.flow, "name": "mp_tiny", "start": 0.0, "stop": 0.5}
    (model,) = comfy.run("MotionPromptCaptureFlow", model=tiny.model, pairs=2, max_gap=1, **inputs)
    assert torch.equal(tiny.stock(model=model), tiny.stock())
    (file,) = (folders["output"] / "motionprompt" / "captured" / "mp_tiny").glob("*.safetensors")
    from safetensors.torch import load_file

    kept = load_file(file)
    assert kept["flow"].shape == (4, 2, 128, 128) and torch.isfinite(kept["flow"]).all()
    first, second = kept["sigma"].unique().tolist()[::-1]
    assert first > second > 0, "two steps of four, each at a noise level of its own"
    found, info = dataset_of(comfy, tiny.flow, real_images=[batch(1)], captured=["mp_tiny"])
    assert len(found.generated) == 1 == found.captured and "captured" in info
    other = comfy.run("MotionPromptLoadOpticalFlow", name="lucas_kanade", download=False)[0]
    with pytest.raises(ValueError, match="were measured by gradient"):
        dataset_of(comfy, other, real_images=[batch(1)], captured=["mp_tiny"])


def test_seeds_and_prompts_for_many_clips(comfy):
    prompts, seeds = comfy.run("MotionPromptClipSeeds", prompts="one\n\n two ", count=3, seed=7)
    assert (prompts, seeds) == (["one", "two", "one"], [7, 8, 9])
    assert comfy.node("MotionPromptClipSeeds").OUTPUT_IS_LIST == [True, True]
    with pytest.raises(ValueError, match="there is no prompt"):
        comfy.run("MotionPromptClipSeeds", prompts=" \n", count=3, seed=7)


@pytest.mark.ade
@pytest.mark.parametrize("captured_first", [False, True], ids=["after", "before"])
def test_estimates_are_captured_with_animatediff(tiny_ade, folders, captured_first):
    """AnimateDiff-Evolved calls none of the hooks that stand around classifier-free guidance."""
    name = f"mp_ade_{captured_first}"

    def capture(model):
        inputs = {"vae": tiny_ade.vae, "flow_model": tiny_ade.flow, "name": name, "start": 0.0, "stop": 1.0}
        return tiny_ade.comfy.run("MotionPromptCaptureFlow", model=model, pairs=1, max_gap=1, **inputs)[0]

    if captured_first:
        model = tiny_ade.animatediff("v2", model=capture(tiny_ade.model))
    else:
        model = capture(tiny_ade.animatediff("v2"))
    tiny_ade.stock(model=model)
    assert len(list((folders["output"] / "motionprompt" / "captured" / name).glob("*.safetensors"))) == 1


def test_a_window_that_holds_no_step_is_refused_before_sampling(tiny):
    inputs = {"vae": tiny.vae, "flow_model": tiny.flow, "name": "mp_none", "start": 0.1, "stop": 0.2}
    (model,) = tiny.comfy.run("MotionPromptCaptureFlow", model=tiny.model, pairs=1, max_gap=1, **inputs)
    with pytest.raises(ValueError, match="none of the 4 steps lies between start 0.1 and stop 0.2"):
        tiny.stock(model=model)


def test_what_is_saved_is_what_its_name_loads(comfy, tiny, tmp_path):
    """extra_model_paths.yaml may name another folder, whose files of the same name come first."""
    import folder_paths

    core = comfy.module("motionprompt_core.discriminator.model")
    core.save_discriminator(tiny.discriminator.module, tmp_path / "mp shadow.safetensors")
    folder_paths.folder_names_and_paths["motionprompt"][0].insert(0, str(tmp_path))
    try:
        save = {"discriminator": tiny.make_discriminator(flows=2), "filename": "mp shadow", "trained_on": "new"}
        _, name = comfy.run("MotionPromptSaveFlowDiscriminator", **save)
        assert comfy.run("MotionPromptLoadFlowDiscriminator", name=name)[0].module.config.flows == 2
    finally:
        folder_paths.folder_names_and_paths["motionprompt"][0].remove(str(tmp_path))
