"""The pack as an artist meets it: the real interface in a browser, on live servers.

Two interfaces, the one that pip installed on the oldest ComfyUI and the newest on the newest, each with its classic
canvas and with Nodes 2.0; one server and one tab for each interface. Screenshots of everything are in output/browser.
MOTIONPROMPT_FRONTEND=<folder "static" of a comfyui_frontend_package> tries another in the newest's place.
"""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from scripts.browser import Canvas, NoBrowser, find_browser, open_canvas
from scripts.comfy_server import PACK_NAME, ComfyServer
from scripts.locate import animatediff, comfyuis, newest_frontend
from scripts.workflow import load_workflow, ui_to_api
from tests.comfyui.conftest import MISSING, probe_packs

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
SEEDS = itertools.count(1)
HOSTILE = "<img src=x onerror=RAN.push(1)>"


def put_files(folder: Path) -> None:
    """Empty files under the names that the workflows ask for: newer interfaces mark nodes whose file is missing."""
    for node in (node for path in WORKFLOWS for node in load_workflow(path)["nodes"]):
        for model in node["properties"].get("models", []):
            if model["directory"] != "motionprompt":  # that one comes with the pack
                (folder / "models" / model["directory"]).mkdir(parents=True, exist_ok=True)
                (folder / "models" / model["directory"] / model["name"]).touch()
        if node["type"] in ("LoadVideo", "LoadImage"):
            (folder / "input").mkdir(exist_ok=True)
            (folder / "input" / node["widgets_values"][0]).touch()
        if node["type"] == "MotionPromptLoadVideoCheckpoint":
            (folder / "models" / "checkpoints").mkdir(parents=True, exist_ok=True)
            for name in (value for value in node["widgets_values"] if str(value).endswith(".safetensors")):
                (folder / "models" / "checkpoints" / name).touch()
    for kind in ("motionprompt", "checkpoints", "diffusion_models"):
        (folder / "models" / kind).mkdir(parents=True, exist_ok=True)
        (folder / "models" / kind / f"{HOSTILE}.safetensors").touch()
    for side in (HOSTILE, "generated"):
        (folder / "input" / side).mkdir(parents=True)
        texture = Image.effect_noise((24, 24), 90).resize((96, 96))
        frames = [ImageChops.offset(texture, 3 * number, 0) for number in range(8)]
        options = {"save_all": True, "append_images": frames[1:], "duration": 125}
        frames[0].save(folder / "input" / side / f"{HOSTILE}.webp", **options)


@pytest.fixture(scope="session", params=["bundled interface", "newest interface"])
def interface(request: pytest.FixtureRequest) -> str:
    """Of the session, so that all tests of one come before those of the other, and each server starts once."""
    return request.param


@pytest.fixture(scope="module")
def server(interface: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """The oldest ComfyUI with the interface that is installed, or the newest with the newest."""
    try:
        find_browser()
    except NoBrowser as missing:
        pytest.skip(f"no browser tests: {missing}")
    paths, args = comfyuis() or pytest.skip(MISSING), []
    if newest := interface.startswith("newest"):
        frontend = newest_frontend() or pytest.skip("the newest interface is absent (run.py test installs it)")
        args = ["--front-end-root", str(frontend)]
    path = paths[-1] if newest else paths[0]
    ade = animatediff(path)
    put_files(folder := tmp_path_factory.mktemp("comfyui"))
    with ComfyServer(path, [ROOT, *probe_packs(), *([ade] if ade else [])], base_dir=folder, args=args) as running:
        yield running


@pytest.fixture(scope="module")
def tab(server: ComfyServer) -> Iterator[Canvas]:
    with open_canvas(server.url) as opened:
        yield opened


@pytest.fixture
def classic(tab: Canvas, server: ComfyServer) -> Canvas:
    """For what has nothing to do with how nodes are drawn."""
    tab.use_nodes_2(False)
    tab.prefix = f"{server.version}_"
    return tab


@pytest.fixture(scope="module", params=["classic", "Nodes 2.0"])
def canvas(tab: Canvas, server: ComfyServer, request: pytest.FixtureRequest) -> Canvas:
    """The tab with one of the two ways in which ComfyUI draws nodes."""
    tab.use_nodes_2(request.param == "Nodes 2.0")
    tab.prefix = f"{server.version}_{request.param.replace(' ', '_').lower()}_"
    return tab


@pytest.fixture
def quickstart(tmp_path: Path) -> Path:
    """A copy with an id of its own: the interface takes two files with one id for one workflow."""
    workflow = {**load_workflow(ROOT / "workflows" / "quickstart.json"), "id": str(uuid.uuid4())}
    (tmp_path / "quickstart.json").write_text(json.dumps(workflow), encoding="utf-8")
    return tmp_path / "quickstart.json"


def needs_ade(path: Path) -> None:
    if "ADE_" in path.read_text(encoding="utf-8") and animatediff() is None:
        pytest.skip("AnimateDiff-Evolved is absent (set COMFYUI_PATH to a ComfyUI that has it)")


def overlapping(nodes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of nodes that cover each other."""
    pairs = []
    for number, first in enumerate(nodes):
        for second in nodes[number + 1 :]:
            (ax, ay, aw, ah), (bx, by, bw, bh) = first["bounds"], second["bounds"]
            if ax < bx + bw and bx < ax + aw and ay < by + bh and by < ay + ah:
                pairs.append((first["title"], second["title"]))
    return pairs


def what_runs(prompt: dict[str, Any]) -> dict[str, Any]:
    """Types and inputs, without the text box that the interface adds to Preview Any and sends along."""
    return {
        node: (item["class_type"], {name: value for name, value in item["inputs"].items() if name != "preview"})
        for node, item in prompt.items()
    }


def test_every_workflow_is_listed_with_its_thumbnail(classic: Canvas) -> None:
    classic.open_templates(PACK_NAME)
    for path in WORKFLOWS:
        assert path.stem in classic.template(path.stem).inner_text()
        with Image.open(path.with_suffix(".jpg")) as thumbnail:
            size = list(thumbnail.size)
        classic.page.wait_for_function(
            "([name, size]) => [...document.images].some(image => image.alt === name &&"
            " image.naturalWidth === size[0] && image.naturalHeight === size[1])",
            arg=[path.stem, size],
        )
    classic.page.wait_for_timeout(500)
    classic.shoot("templates")
    classic.open()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_opens_in_every_canvas_without_overlaps_and_means_what_the_tests_run(
    canvas: Canvas, server: ComfyServer, path: Path
) -> None:
    needs_ade(path)
    expected = what_runs(ui_to_api(load_workflow(path), server.object_info()))
    canvas.drop(path)
    canvas.close_dialogs()
    nodes = canvas.nodes()
    assert sorted(node["type"] for node in nodes) == sorted(node["type"] for node in load_workflow(path)["nodes"])
    assert [node["type"] for node in nodes if not node["known"] or node["wrong"]] == []
    assert what_runs(canvas.prompt()) == expected
    canvas.fit()
    canvas.shoot(path.stem)
    assert overlapping(canvas.nodes()) == []
    assert canvas.errors == []


def test_a_workflow_opens_by_click(classic: Canvas, server: ComfyServer) -> None:
    path = ROOT / "workflows" / "quickstart.json"
    classic.open_templates(PACK_NAME)
    classic.click_template(path.stem)
    classic.close_dialogs()
    assert what_runs(classic.prompt()) == what_runs(ui_to_api(load_workflow(path), server.object_info()))


def test_quickstart_run_from_the_canvas_ends_with_pictures_curves_and_lines_on_it(
    canvas: Canvas, quickstart: Path
) -> None:
    canvas.drop(quickstart)
    canvas.set_widgets("KSampler", steps=6)
    # A run, and not what the server kept; the paper's way has more to show.
    canvas.set_widgets("MotionPromptKSampler", steps=6, seed=next(SEEDS), guide="tokens")
    assert canvas.view_of("MotionPromptKSampler") is canvas.view_of("MotionPromptReport") is None, "an empty hole"
    assert canvas.run() == "execution_success"
    canvas.fit()  # what is out of sight is not drawn, and its pictures are not loaded
    sampler, report = (canvas.wait_for_view(kind) for kind in ("MotionPromptKSampler", "MotionPromptReport"))
    lines = report["text"].split("\n")
    assert re.fullmatch(r"done: \d+ of 6 steps guided, \d+ s", lines[0]) and "loss" in lines[1]
    assert sampler["text"] == report["text"] and sampler["curves"] == 2 and report["curves"] == 0
    shown = {"SaveAnimatedWEBP", "MotionPromptReport"}
    canvas.page.wait_for_function(
        "types => window.app.graph.nodes.filter(node => types.includes(node.type)).every(node => node.imgs?.length &&"
        " node.imgs.every(image => image.naturalWidth > 0)) || document.querySelectorAll('.lg-node img').length >= 4",
        arg=sorted(shown),
    )
    canvas.fit()  # animated pictures find their place with the next redraws
    canvas.shoot("quickstart_done")
    assert overlapping(canvas.nodes()) == []
    assert canvas.errors == []


def test_what_is_left_to_the_preset_says_so_in_both_canvases(canvas: Canvas, quickstart: Path) -> None:
    canvas.drop(quickstart)
    canvas.fit()
    shown = canvas.shown_values("MotionPromptKSampler")
    left = {name: shown[name] for name in ("mode", "guide", "start", "stop", "preserve_detail")}
    assert left == dict.fromkeys(left, "preset") and shown["preset"] == "demo"
    assert canvas.errors == []


def test_what_a_run_shows_is_in_no_workflow_and_survives_a_reload(
    canvas: Canvas, quickstart: Path, interface: str
) -> None:
    early = "nodes_2.0" in canvas.prefix and interface.startswith("bundled")  # its heights are others at each opening

    def saved() -> tuple[dict[str, Any], int]:
        """Widgets of the pack's nodes by id, and the height of the sampler, as a file would have them."""
        nodes = canvas.evaluate("() => window.app.graph.serialize().nodes")
        ours = {str(node["id"]): node for node in nodes if node["type"].startswith("MotionPrompt")}
        height = next(node["size"][1] for node in ours.values() if node["type"] == "MotionPromptKSampler")
        return {number: node.get("widgets_values", []) for number, node in ours.items()}, height

    def same(before: tuple[dict[str, Any], int]) -> bool:
        """Interfaces measure a node anew when they open it, and find a few pixels more or less."""
        now = saved()
        return now[0] == before[0] and (early or abs(now[1] - before[1]) < 10)

    canvas.drop(quickstart)
    canvas.page.wait_for_timeout(500)  # nodes grow to what they hold
    before, prompt = saved(), canvas.prompt()
    canvas.show_view("MotionPromptKSampler", ["step 5 of 20", "phi 0.1 -> 0.6"])
    shown = canvas.wait_for_view("MotionPromptKSampler")
    assert shown["text"] == "step 5 of 20\nphi 0.1 -> 0.6" and shown["curves"] == 2
    assert same(before) and canvas.prompt() == prompt

    canvas.page.wait_for_timeout(1500)  # the interface keeps its drafts with a delay
    canvas.open()
    assert canvas.wait_for_view("MotionPromptKSampler") == shown
    assert same(before) and canvas.prompt() == prompt
    assert canvas.errors == []


def test_what_a_run_shows_belongs_to_its_node_alone(canvas: Canvas, quickstart: Path) -> None:
    canvas.drop(quickstart)
    canvas.show_view("MotionPromptKSampler", ["of another workflow"], workflow="another")
    assert canvas.view_of("MotionPromptKSampler") is None
    canvas.show_view("MotionPromptKSampler", ["its own"])
    canvas.wait_for_view("MotionPromptKSampler")
    widgets, copied = canvas.evaluate(
        """() => {
            const { app } = window, values = node => node.widgets.filter(w => w.serialize !== false).map(w => w.value);
            const node = app.graph.nodes.find(node => node.type === "MotionPromptKSampler");
            const known = new Set(app.graph.nodes);
            app.canvas.copyToClipboard([node]);
            app.canvas.pasteFromClipboard();
            const copy = app.graph.nodes.find(node => !known.has(node));
            const found = [values(node), [values(copy), copy.widgets.some(w => w.name === "motionprompt_view")]];
            app.graph.remove(node);
            return found;
        }"""
    )
    assert copied == [widgets, False]
    gone = "() => document.querySelectorAll('.motionprompt-view').length === 0"
    canvas.page.wait_for_function(gone)
    assert canvas.errors == []


def test_a_node_in_a_subgraph_shows_its_run_inside_and_outside(canvas: Canvas, quickstart: Path) -> None:
    canvas.drop(quickstart)
    outer = canvas.to_subgraph("MotionPromptKSampler")
    inner = [node for node, item in canvas.prompt().items() if item["class_type"] == "MotionPromptKSampler"]
    assert len(inner) == 1 and inner[0].startswith(f"{outer}:")
    canvas.show_view("MotionPromptKSampler", ["inside"], inside=f"{outer}:")
    assert canvas.wait_for_view("MotionPromptKSampler")["text"] == "inside"
    canvas.shoot("subgraph")
    kind = canvas.leave_subgraph(outer)
    assert canvas.wait_for_view(kind)["text"] == "inside"
    canvas.fit()
    canvas.shoot("subgraph_from_outside")
    assert "motionprompt_view" not in json.dumps(canvas.evaluate("() => window.app.graph.serialize()"))
    assert canvas.errors == []


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem.split()[-1])
def test_a_blueprint_is_one_node_whose_widgets_reach_all_inside(canvas: Canvas, path: Path) -> None:
    canvas.drop(path)
    (node,) = canvas.nodes()
    values = {"seed": 5, "steps": 7, "cfg": 2.5, "sampler_name": "heun", "scheduler": "normal", "prompt": "a corgi"}
    assert {*values, "negative_prompt", "preset", "strength"} <= set(node["widgets"])
    canvas.set_widgets(node["type"], **values, strength=0.5)
    prompt = [(item["class_type"], item["inputs"]) for item in canvas.prompt().values()]
    samplers = [inputs for kind, inputs in prompt if kind.endswith("KSampler")]
    sampling = {name: value for name, value in values.items() if name != "prompt"}
    assert [{name: inputs[name] for name in sampling} for inputs in samplers] == [sampling] * len(samplers) != []
    assert [inputs["strength"] for kind, inputs in prompt if kind == "MotionPromptKSampler"] == [0.5]
    assert [inputs for kind, inputs in prompt if values["prompt"] in (inputs.get("text"), inputs.get("value"))]
    canvas.shoot(path.stem.replace(" ", "_"))
    assert canvas.errors == []


def test_names_of_files_run_no_script(canvas: Canvas, quickstart: Path) -> None:
    """Of a clip and its folder while they are measured, of a missing folder in an error, of weights in a menu."""
    canvas.drop(quickstart)
    canvas.evaluate(
        """([real, generated]) => {
            const { app, LiteGraph } = window;
            window.RAN = [];
            app.graph.clear();
            const flow = LiteGraph.createNode("MotionPromptLoadOpticalFlow");
            const data = LiteGraph.createNode("MotionPromptFlowDataset");
            const text = LiteGraph.createNode("PreviewAny");
            for (const node of [flow, data, text]) app.graph.add(node);
            flow.widgets.find(w => w.name === "name").value = "lucas_kanade";
            data.widgets.find(w => w.name === "real").value = real;
            data.widgets.find(w => w.name === "generated").value = generated;
            flow.connect(0, data, data.inputs.findIndex(input => input.name === "flow_model"));
            data.connect(1, text, 0);
        }""",
        [HOSTILE, "generated"],
    )
    assert canvas.run() == "execution_success", canvas.evaluate("window.detail.exception_message")
    canvas.fit()
    view = canvas.wait_for_view("MotionPromptFlowDataset")
    assert HOSTILE in view["text"] and view["tags"] == 0
    canvas.shoot("names")
    canvas.set_widgets("MotionPromptFlowDataset", real=f"{HOSTILE} missing")
    assert canvas.run() == "execution_error"
    assert HOSTILE in canvas.evaluate("window.detail.exception_message")
    menus = canvas.evaluate(
        """() => {
            const { LiteGraph } = window;
            return ["MotionPromptLoadFlowDiscriminator", "MotionPromptLoadVideoCheckpoint"].flatMap(kind => {
                const lists = LiteGraph.createNode(kind).widgets.map(widget => widget.options.values);
                for (const values of lists) if (values?.length) new LiteGraph.ContextMenu(values, {});  // a click
                return lists.flat();
            });
        }"""
    )
    assert "demo_discriminator.safetensors" in menus
    canvas.page.wait_for_timeout(500)
    assert canvas.evaluate("window.RAN") == []
    canvas.close_dialogs()


def test_help_is_in_the_users_language(classic: Canvas) -> None:
    page = (ROOT / "web" / "docs" / "MotionPromptReport" / "zh.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert headings and "When to use it" in classic.help_page("MotionPromptReport")
    try:
        classic.change_setting("Comfy.Locale", "zh")
        shown = classic.help_page("MotionPromptReport")
        picture = "document.querySelector('.node-help-content img')?.naturalWidth > 99"
        classic.page.wait_for_function(picture)
        classic.shoot("help_in_chinese")
    finally:
        classic.change_setting("Comfy.Locale", "en")
    assert [heading for heading in headings if heading not in shown] == []


def test_a_missing_file_gets_the_dialog_that_names_its_folder(classic: Canvas, tmp_path: Path) -> None:
    """The discriminator that a shared workflow was made with, under a name that this machine does not have."""
    text = (ROOT / "workflows" / "quickstart.json").read_text(encoding="utf-8")
    renamed = tmp_path / "renamed.json"
    renamed.write_text(text.replace("demo_discriminator.safetensors", "renamed.safetensors"), encoding="utf-8")
    classic.drop(renamed)
    dialog = classic.page.locator(".p-dialog").get_by_text("motionprompt / renamed.safetensors")
    details = classic.page.get_by_text("View details")  # newer interfaces have a panel instead
    dialog.or_(details).first.wait_for()
    if details.count():
        details.first.click()
        classic.page.get_by_text("renamed.safetensors", exact=True).first.wait_for()
        classic.page.get_by_text("motionprompt", exact=True).first.wait_for()
    classic.shoot("missing_model")
    classic.close_dialogs()
