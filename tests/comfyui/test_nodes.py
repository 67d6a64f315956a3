"""The nodes as an artist meets them: names, tooltips, order of widgets, files, report."""

from __future__ import annotations

import asyncio
import json
import pickle
import re
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file


def executed(node_id: object) -> SimpleNamespace:
    """Stands for the class of a node that is being executed."""
    return SimpleNamespace(hidden=SimpleNamespace(unique_id=node_id))


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


def inputs_of(comfy, name):
    types = comfy.node(name).INPUT_TYPES()
    return {**types["required"], **types["optional"]}


@pytest.mark.parametrize("name", ["MotionPromptKSampler", "MotionPromptApply"])
def test_every_setting_has_one_input_beside_at_most_nine_on_the_sampling_node(comfy, name):
    ours = {"preset", *comfy.module("nodes.options").SLIDERS}
    assert len(ours) <= 9
    settings = comfy.module("motionprompt_core.guidance.settings").KNOBS
    shown, rest = set(inputs_of(comfy, name)) & {"preset", *settings}, set(inputs_of(comfy, "MotionPromptSettings"))
    assert shown == ours and shown | rest == {"preset", *settings} and not shown & rest


@pytest.mark.parametrize("preset", ["paper", "demo", "animatediff"])
def test_nodes_as_they_are_mean_the_preset(comfy, preset):
    (settings,) = comfy.run("MotionPromptSettings")
    assert settings == {}
    sliders = {name: spec[1]["default"] for name, spec in inputs_of(comfy, "MotionPromptKSampler").items()
               if name in comfy.module("nodes.options").SLIDERS}  # fmt: skip
    presets = comfy.module("motionprompt_core.guidance.presets").PRESETS
    assert comfy.module("nodes.options").settings_from(preset, settings, sliders) == presets[preset].settings


def test_every_value_can_be_reached(comfy):
    """One that is unlike every preset's, for each setting, through the widgets' own words and limits."""
    options, knobs = comfy.module("nodes.options"), comfy.module("motionprompt_core.guidance.settings").KNOBS
    wanted, sliders, rest = {}, {}, {}
    for name in ("MotionPromptKSampler", "MotionPromptSettings"):
        for setting, spec in inputs_of(comfy, name).items():
            if setting not in knobs:
                continue
            value = menu(spec)[-1] if menu(spec) else spec[1]["max"]
            (sliders if name == "MotionPromptKSampler" else rest)[setting] = value
            offered = knobs[setting].offered
            wanted[setting] = offered[-1] if offered else False if setting == "fresh_adam" else value
    chosen = options.settings_from("demo", comfy.run("MotionPromptSettings", **rest)[0], sliders).to_dict()
    assert {name: chosen[name] for name in wanted} == wanted
    assert set(wanted) == set(knobs)


def menu(spec):
    return spec[0] if isinstance(spec[0], list) else spec[1].get("options")


def test_what_presets_decide_is_a_menu_that_offers_every_presets_own_value(comfy):
    options, presets = comfy.module("nodes.options"), comfy.module("motionprompt_core.guidance.presets").PRESETS
    inputs = {**inputs_of(comfy, "MotionPromptKSampler"), **inputs_of(comfy, "MotionPromptSettings")}
    for name in comfy.module("motionprompt_core.guidance.settings").KNOBS:
        if name in options.OWN:
            continue
        assert menu(inputs[name])[0] == inputs[name][1]["default"] == "preset"
        for preset in presets.values():
            found = [options.moved({name: text}) for text in menu(inputs[name])]
            assert {name: getattr(preset.settings, name)} in found, name


def test_a_script_may_send_numbers_that_the_menu_does_not_offer(comfy):
    assert comfy.run("MotionPromptSettings", iterations=7, max_gap="5", lambda_tv=0.37)[0] == {
        "iterations": 7, "max_gap": 5, "lambda_tv": 0.37,
    }  # fmt: skip


@pytest.mark.parametrize(("value", "shown"), [(101, "101"), ("101", "101"), ("many", "'many'"), ("2.5", "'2.5'")])
def test_a_setting_out_of_range_is_refused_by_the_node_that_has_it(comfy, value, shown):
    with pytest.raises(ValueError, match=f"iterations is {shown}, but must be a whole number from 1"):
        comfy.run("MotionPromptSettings", iterations=value)


@pytest.mark.parametrize("name", ["MotionPromptKSampler", "MotionPromptApply"])
def test_a_window_that_ends_before_it_starts_is_refused_before_the_run(comfy, name):
    check = comfy.node(name).validate_inputs
    assert check("demo", start="0.5") is check("paper", start=0.13, stop=None) is check(None) is True
    assert "The guided window is negative: it starts at 0.5 and stops at 0.3" in check("paper", start="0.5")
    assert "start is 'soon', but must be a number" in check("paper", start="soon")


def test_a_renamed_node_is_replaced_where_comfyui_can_and_harmless_where_not(comfy, monkeypatch):
    renames = comfy.module("nodes.host.renames")
    inputs = {"picture": "images", "flow": "flow_model", "rate": "fps"}
    renamed = renames.Renamed("MotionPromptOld", "MotionPromptTemporalMetrics", ("rate",), inputs, (1, 0))
    if not hasattr(__import__("comfy_api.latest").latest.io, "NodeReplace"):
        asyncio.run(renames.register_renames([renamed]))
        return
    import server
    from app.node_replace_manager import NodeReplaceManager

    import nodes as core_nodes

    manager = NodeReplaceManager()
    monkeypatch.setattr(server.PromptServer, "instance", SimpleNamespace(node_replace_manager=manager), raising=False)
    monkeypatch.setitem(core_nodes.NODE_CLASS_MAPPINGS, "MotionPromptTemporalMetrics", object)
    asyncio.run(renames.register_renames([renamed]))
    old = {"picture": ["2", 0], "flow": ["3", 0], "rate": 24.0}
    prompt = {"1": {"class_type": "MotionPromptOld", "inputs": old, "_meta": {}}}
    prompt["4"] = {"class_type": "PreviewAny", "inputs": {"source": ["1", 1]}, "_meta": {}}
    manager.apply_replacements(prompt)
    new = {"images": ["2", 0], "flow_model": ["3", 0], "fps": 24.0}
    assert prompt["1"] == {"class_type": "MotionPromptTemporalMetrics", "inputs": new, "_meta": {}}
    assert prompt["4"]["inputs"]["source"] == ["1", 0]
    assert manager.as_dict()["MotionPromptOld"][0]["old_widget_ids"] == ["rate"]


def test_keywords_that_an_older_core_lacks_are_left_out(comfy):
    make = comfy.module("nodes.host.schema").make

    def old(name, tooltip=None):
        return name, tooltip

    assert make(old, "seed", tooltip="x", advanced=True, gradient_stops=[1]) == ("seed", "x")


@pytest.fixture
def discriminator_file(comfy, tmp_path):
    """A good file in a model folder of ComfyUI's; its name and path."""
    import folder_paths

    core = comfy.module("motionprompt_core.discriminator.model")
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
    image, text, summary = tiny.comfy.run("MotionPromptReport", report=report)
    assert image.ndim == 4 and image.shape[0] == 1 and image.shape[-1] == 3
    assert 0 <= image.min() and image.max() <= 1 and image.std() > 0.05
    assert "guided steps: [1, 2] of" in summary
    under_the_node = report.brief().splitlines()
    assert len(under_the_node) == 2 and "2 of 4 steps guided" in under_the_node[0] and "phi" in under_the_node[1]
    report.note("Something is amiss.")
    assert report.brief().splitlines()[2].startswith("1 remark: see the picture")
    values = json.loads(text)
    assert [step["step"] for step in values["steps"]] == values["planned"] == [1, 2]
    assert all(len(step["iterations"]) == 2 for step in values["steps"])
    assert values["seconds"] > 0 and values["peak_memory"] > 0
    assert values["flow"][0]["mean_speed_before"] != values["flow"][0]["mean_speed_after"]


def guided_with_a_view(tiny, monkeypatch, **settings):
    """A guided run of 4 steps that shows itself on node 7: (what it showed, progress, previews)."""
    import comfy.utils
    import latent_preview
    from server import PromptServer

    views, bars, seen = [], [], []

    class Previewer:
        def decode_latent_to_preview_image(self, kind, x0):
            seen.append((kind, tuple(x0.shape)))
            return (kind, None, 0)

    server = PromptServer.instance
    sent = lambda event, data, sid=None: views.append(data) if event == "motionprompt.view" else None  # noqa: E731
    monkeypatch.setattr(server, "send_sync", sent)
    monkeypatch.setattr(latent_preview, "get_previewer", lambda device, latent_format: Previewer())
    hook = lambda value, total, preview, node_id=None: bars.append((value, total, preview is not None))  # noqa: E731
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    view = tiny.comfy.module("nodes.host.status").node_view(executed(7))
    sampling = tiny.comfy.module("nodes.host.sampling")
    chosen = tiny.comfy.module("motionprompt_core.guidance.settings").GuidanceSettings(start=0, **settings)
    report = tiny.comfy.module("nodes.host.report").GuidanceReport()
    host = tiny.comfy.module("nodes.host.guidance")
    guidance = host.Guidance(chosen, tiny.vae, tiny.flow, tiny.discriminator, report, view)
    patch = sampling.MotionPromptPatch(guidance)
    tiny.stock(model=patch.attach(tiny.model), positive=tiny.learnable)
    return views, bars, seen


def test_lines_and_curves_on_the_node_tell_how_it_goes(tiny, monkeypatch):
    views, _, _ = guided_with_a_view(tiny, monkeypatch, stop=0.25)
    assert [view["node"] for view in views] == ["7"] * 5
    assert "times the time of the plain video" in views[0]["lines"][0] and views[0]["curves"] == {}
    lines = "\n".join(views[3]["lines"])
    for part in (r"step 1 of 4, iteration 3/3", r"phi 0\.\d+ -> 0\.\d+", r"drift 0\.\d+", r"\d+:\d\d left"):
        assert re.search(part, lines), lines
    assert views[4]["lines"][0].startswith("done: 1 of 4 steps guided") and "phi" in views[4]["lines"][1]
    # Each has the whole curve: a browser may come late, or miss one.
    assert [len(view["curves"]["loss"]) for view in views[1:]] == [1, 2, 3, 3]
    curves = views[4]["curves"]
    assert len(set(curves["loss"])) == 3 and all(0 < phi < 1 for phi in curves["phi"]) and curves["step"] == [0, 0, 0]


def test_lines_on_the_node_tell_what_the_estimate_costs_before_and_by_how_much_it_was_changed_after(tiny, monkeypatch):
    views, _, _ = guided_with_a_view(tiny, monkeypatch, guide="estimate")
    before, after = views[-2], views[-1]
    assert "the estimate is guided" in before["lines"][0] and before["curves"] == {}
    assert re.search(r"Up to \d of 4 steps are corrected. Each time \d+ frames .* GiB", before["lines"][1])
    corrected = int(re.search(r"^done: estimate corrected (\d) times", after["lines"][0]).group(1))
    assert corrected > 0 and len(after["curves"]["change"]) == corrected


def test_what_a_node_shows_names_its_workflow_and_is_json_for_a_browser(comfy, monkeypatch):
    from server import PromptServer

    status, sent = comfy.module("nodes.host.status"), []
    server = PromptServer.instance
    monkeypatch.setattr(server, "send_sync", lambda event, data, sid=None: sent.append(data))
    prompt = (0, "id", {}, {"extra_pnginfo": {"workflow": {"id": "some workflow"}}}, [])
    monkeypatch.setattr(server.prompt_queue, "currently_running", {0: prompt})
    monkeypatch.setattr(server, "last_node_id", "3:7")  # what a loop runs in place of node 7 has another id
    status.node_view(executed("3:12.0.7")).show("one\ntwo", {"loss": [1.0, float("nan"), float("inf"), None]})
    expected = {"node": "3:7", "workflow": "some workflow", "lines": ["one", "two"]}
    assert sent == [{**expected, "curves": {"loss": [1.0, None, None, None]}}]


def test_the_progress_bar_moves_with_every_iteration_and_shows_the_estimate(tiny, monkeypatch):
    _, bars, seen = guided_with_a_view(tiny, monkeypatch, stop=0.5, iterations=2)
    values = [value for value, _, _ in bars]
    assert values == sorted(values), "the bar goes back"
    assert values == [0.333, 0.667, 1, 1.333, 1.667, 2, 3, 4]
    assert all(preview for _, _, preview in bars)
    assert seen[0] == ("JPEG", tuple(tiny.latent()["samples"].shape))


def test_time_left_counts_what_is_still_to_do(tiny):
    now = [0.0]
    left = tiny.comfy.module("nodes.host.progress").TimeLeft(4, [1, 2], 2, clock=lambda: now[0])

    def after(seconds, event):
        now[0] += seconds
        event()
        return left.seconds()

    assert after(1.0, left.step_done) is None  # step 0 is plain; nothing is known of iterations
    assert after(10.0, left.iteration_done) == 3 * 1 + 3 * 10
    assert after(10.0, left.iteration_done) == 3 * 1 + 2 * 10
    assert after(1.0, left.step_done) == 2 * 1 + 2 * 10
    for seconds, event in ((10.0, left.iteration_done), (10.0, left.iteration_done), (1.0, left.step_done)):
        after(seconds, event)
    assert after(1.0, left.step_done) == 0


def test_controlnet_is_part_of_what_is_differentiated(tiny):
    models = __import__("sys").modules[f"{tiny.comfy.node('TinyVideoModel').__module__}.models"]
    with torch.inference_mode():
        control = models.tiny_controlnet()
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


def test_each_sampling_of_a_patched_model_has_its_own_report(tiny):
    """Two samplers, or one for each of Clip Seeds' seeds: all showed the report of the last."""
    model, report = tiny.applied()
    videos = [tiny.stock(model=model, positive=tiny.learnable, seed=seed) for seed in (1, 2, 3)]
    texts = [tiny.comfy.run("MotionPromptReport", report=report, latent={"samples": video})[1] for video in videos]
    assert len(set(texts)) == 3
    assert "sampled 3 times" in tiny.comfy.run("MotionPromptReport", report=report)[2]


def test_a_short_second_pass_does_not_hide_the_first(tiny):
    model, report = tiny.applied()
    first = tiny.stock(model=model, positive=tiny.learnable, seed=1)
    second = tiny.stock(model=model, positive=tiny.learnable, seed=1, steps=2, denoise=0.3)
    assert report.num_steps == 4 and len(report.guided) == 2
    shown = [
        tiny.comfy.run("MotionPromptReport", report=report, latent={"samples": video}) for video in (first, second)
    ]
    assert [json.loads(text)["num_steps"] for _, text, _ in shown] == [4, 2]


def test_nothing_to_denoise_is_told_and_fails_nothing(tiny):
    latent = tiny.latent()
    same, report = tiny.guided(latent_image=latent, denoise=0.0)
    assert torch.equal(same, latent["samples"]) and report.state == "off"
    assert "denoise is 0" in tiny.comfy.run("MotionPromptReport", report=report)[2]
    _, waiting = tiny.applied()
    assert "Nothing has been sampled" in tiny.comfy.run("MotionPromptReport", report=waiting)[2]
