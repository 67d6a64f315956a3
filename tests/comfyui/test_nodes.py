"""The nodes as an artist meets them: names, tooltips, order of widgets, files, report."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def nodes(comfy):
    return comfy.module("nodes").NODES


def test_ids_are_prefixed_and_unique(nodes):
    ids = [node.define_schema().node_id for node in nodes]
    assert len(set(ids)) == len(ids)
    assert all(name.startswith("MotionPrompt") for name in ids)
    assert {
        "MotionPromptLoadFlowDiscriminator",
        "MotionPromptLoadOpticalFlow",
        "MotionPromptConditioning",
        "MotionPromptKSampler",
        "MotionPromptApply",
        "MotionPromptReport",
    } <= set(ids)


def test_everything_explains_itself(nodes):
    for node in nodes:
        schema = node.define_schema()
        assert schema.description, schema.node_id
        for item in [*schema.inputs, *schema.outputs]:
            assert item.tooltip and item.tooltip.rstrip().endswith("."), (schema.node_id, item.id)


def test_the_sampler_begins_like_the_stock_ksampler(comfy):
    ours = comfy.node("MotionPromptKSampler").INPUT_TYPES()["required"]
    stock = comfy.node("KSampler").INPUT_TYPES()["required"]
    assert list(ours)[: len(stock)] == list(stock)


def test_both_samplers_have_the_same_guidance_widgets_and_the_settings_defaults(comfy):
    settings = comfy.module("motionprompt_core.settings").GuidanceSettings().to_dict()
    for name in ("MotionPromptKSampler", "MotionPromptApply"):
        types = comfy.node(name).INPUT_TYPES()
        widgets = {**types["required"], **types["optional"]}
        assert {key: widgets[key][1]["default"] for key in settings} == settings


def test_keywords_that_an_older_core_lacks_are_left_out(comfy):
    make = comfy.module("nodes.host.schema").make

    def old(name, tooltip=None):
        return name, tooltip

    assert make(old, "seed", tooltip="x", advanced=True, gradient_stops=[1]) == ("seed", "x")


@pytest.fixture
def discriminator_file(comfy, tmp_path):
    """A good file in a model folder of ComfyUI's; its name and path."""
    import folder_paths

    core = comfy.module("motionprompt_core.discriminator")
    config = core.DiscriminatorConfig(flow_model="gradient", img_size=32, depth=1, embed_dim=16, num_heads=2)
    path = tmp_path / "mine.safetensors"
    core.save_discriminator(core.FlowDiscriminator(config), path, accuracy=0.875)
    folders = folder_paths.folder_names_and_paths["motionprompt"][0]
    folders.append(str(tmp_path))
    folder_paths.filename_list_cache.pop("motionprompt", None)
    yield path
    folders.remove(str(tmp_path))
    folder_paths.filename_list_cache.pop("motionprompt", None)


def load(comfy, path):
    return comfy.run("MotionPromptLoadFlowDiscriminator", name=path.name)


def test_a_discriminator_in_a_model_folder_is_listed_and_tells_about_itself(comfy, discriminator_file):
    (options, _) = comfy.node("MotionPromptLoadFlowDiscriminator").INPUT_TYPES()["required"]["name"]
    options = options if isinstance(options, list) else _["options"]
    assert discriminator_file.name in options
    assert "demo_video_model.safetensors" not in options
    model, info = load(comfy, discriminator_file)
    assert model.module(torch.zeros(2, 2, 32, 32)).shape == (2,)
    assert "accuracy: 0.875" in info
    assert "flow model: gradient" in info


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1000])


def pickled(path):
    path.write_bytes(pickle.dumps({"weight": [1.0]}))


def of_another_architecture(path):
    save_file({"conv.weight": torch.zeros(3)}, path, metadata={"format": "pt"})


def with_nan(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    next(iter(state.values())).fill_(float("nan"))
    save_file(state, path, metadata=metadata)


@pytest.mark.parametrize("damage", [truncated, pickled, of_another_architecture, with_nan])
def test_a_bad_discriminator_file_is_named(comfy, discriminator_file, damage):
    damage(discriminator_file)
    with pytest.raises(ValueError, match=r"mine\.safetensors"):
        load(comfy, discriminator_file)


def test_a_missing_file_says_where_it_belongs(comfy):
    with pytest.raises(FileNotFoundError, match="nothing.safetensors.*motionprompt"):
        comfy.run("MotionPromptLoadFlowDiscriminator", name="nothing.safetensors")


def test_the_report_is_a_picture_and_json(tiny):
    _, report = tiny.guided(iterations=2)
    image, text = tiny.comfy.run("MotionPromptReport", report=report)
    assert image.ndim == 4 and image.shape[0] == 1 and image.shape[-1] == 3
    assert 0 <= image.min() and image.max() <= 1 and image.std() > 0.05
    values = json.loads(text)
    assert [step["step"] for step in values["steps"]] == [0, 1]
    assert all(len(step["iterations"]) == 2 for step in values["steps"])
    assert values["seconds"] > 0 and values["peak_memory"] > 0
    assert values["flow"][0]["mean_speed_before"] != values["flow"][0]["mean_speed_after"]


def test_a_line_under_the_node_tells_how_it_goes(tiny, monkeypatch):
    from server import PromptServer

    lines = []
    monkeypatch.setattr(PromptServer.instance, "send_progress_text", lambda text, node: lines.append((node, text)))
    status = tiny.comfy.module("nodes.host.status").status_line(7)
    sampling = tiny.comfy.module("nodes.host.sampling")
    settings = tiny.comfy.module("motionprompt_core.settings").GuidanceSettings(window_start=0, window_end=0.25)
    report = tiny.comfy.module("motionprompt_core.report").GuidanceReport()
    patch = sampling.MotionPromptPatch(settings, tiny.vae, tiny.flow, tiny.discriminator, report, status)
    tiny.stock(model=patch.attach(tiny.model), positive=tiny.learnable)
    assert [node for node, _ in lines] == ["7"] * 3
    assert "step 1" in lines[-1][1] and "3/3" in lines[-1][1] and "phi" in lines[-1][1] and "drift" in lines[-1][1]


def test_controlnet_is_part_of_what_is_differentiated(tiny):
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops

    models = __import__("sys").modules[f"{tiny.comfy.node('TinyVideoModel').__module__}.models"]
    with torch.inference_mode():
        config = dict(tiny.model.model.model_config.unet_config)
        for name in ("out_channels", "transformer_depth_output", "disable_unet_model_creation", "dtype", "device"):
            config.pop(name, None)
        network = comfy.cldm.cldm.ControlNet(
            **config, hint_channels=3, operations=comfy.ops.disable_weight_init, device="cpu", dtype=torch.float32
        )
        models.randomise(network, 5, gain=0.3)
        control = comfy.controlnet.ControlNet(network.eval(), load_device=torch.device("cpu"))
    image = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))

    def controlled(positive):
        return tiny.comfy.run(
            "ControlNetApplyAdvanced",
            positive=positive,
            negative=tiny.negative,
            control_net=control,
            image=image,
            strength=0.7,
            start_percent=0.0,
            end_percent=1.0,
        )

    learnable, negative = controlled(tiny.learnable)
    plain = dict(zip(("positive", "negative"), controlled(tiny.plain), strict=True))
    before = tiny.stock(**plain)
    (without,) = tiny.slopes(positive=tiny.learnable)
    for checkpointing in ("off", "on"):
        options = {"settings": {"checkpointing": checkpointing}, "positive": learnable, "negative": negative}
        (slope,) = tiny.slopes(**options)
        assert slope["autograd"] == pytest.approx(slope["differences"], rel=0.01)
        assert slope["autograd"] != pytest.approx(without["autograd"], rel=0.01)
    off, _ = tiny.guided(positive=learnable, negative=negative, strength=0.0)
    assert torch.equal(off, before)
    assert torch.equal(tiny.stock(**plain), before)
