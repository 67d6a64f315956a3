"""The pack as an artist meets it: the real interface in a browser, on a live server.

One server and one tab for the whole file; screenshots of everything are in output/browser. The interface is the one
that pip installed; MOTIONPROMPT_FRONTEND=<folder "static" of a comfyui_frontend_package> tries another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.browser import Canvas, NoBrowser, find_browser, open_canvas
from scripts.comfy_server import PACK_NAME, ComfyServer
from scripts.locate import animatediff, comfyuis
from scripts.workflow import load_workflow, ui_to_api
from tests.comfyui.conftest import MISSING, probe_packs

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))


def put_files(folder: Path) -> None:
    """Empty files under the names that the workflows ask for: newer interfaces mark nodes whose file is missing."""
    for node in (node for path in WORKFLOWS for node in load_workflow(path)["nodes"]):
        for model in node["properties"].get("models", []):
            if model["directory"] != "motionprompt":  # that one comes with the pack
                (folder / "models" / model["directory"]).mkdir(parents=True, exist_ok=True)
                (folder / "models" / model["directory"] / model["name"]).touch()
        if node["type"] == "LoadVideo":
            (folder / "input").mkdir(exist_ok=True)
            (folder / "input" / node["widgets_values"][0]).touch()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """The ComfyUI whose interface is installed: the oldest one."""
    try:
        find_browser()
    except NoBrowser as missing:
        pytest.skip(f"no browser tests: {missing}")
    paths = comfyuis() or pytest.skip(MISSING)
    ade, frontend = animatediff(), os.environ.get("MOTIONPROMPT_FRONTEND")
    packs = [ROOT, *probe_packs(), *([ade] if ade else [])]
    args = ["--front-end-root", frontend] if frontend else []
    put_files(folder := tmp_path_factory.mktemp("comfyui"))
    with ComfyServer(paths[0], packs, base_dir=folder, args=args) as running:
        yield running


@pytest.fixture(scope="module")
def canvas(server: ComfyServer) -> Iterator[Canvas]:
    with open_canvas(server.url) as tab:
        yield tab


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


def test_every_workflow_is_listed_with_its_thumbnail(canvas: Canvas) -> None:
    canvas.open_templates(PACK_NAME)
    for path in WORKFLOWS:
        canvas.page.get_by_text(path.stem, exact=True).first.scroll_into_view_if_needed()  # others are not loaded
        with Image.open(path.with_suffix(".jpg")) as thumbnail:
            size = list(thumbnail.size)
        canvas.page.wait_for_function(
            "([name, size]) => [...document.images].some(image => image.alt === name &&"
            " image.naturalWidth === size[0] && image.naturalHeight === size[1])",
            arg=[path.stem, size],
        )
    canvas.page.wait_for_timeout(500)
    canvas.shoot("templates")
    canvas.close_dialogs()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_opens_by_click_and_by_drop_and_means_what_the_tests_run(
    canvas: Canvas, server: ComfyServer, path: Path
) -> None:
    needs_ade(path)
    expected = what_runs(ui_to_api(load_workflow(path), server.object_info()))
    types = sorted(node["type"] for node in load_workflow(path)["nodes"])

    canvas.open_templates(PACK_NAME)
    canvas.click_template(path.stem)
    canvas.close_dialogs()
    nodes = canvas.nodes()
    assert sorted(node["type"] for node in nodes) == types
    assert [node["type"] for node in nodes if not node["known"] or node["wrong"]] == []
    assert overlapping(nodes) == []
    assert what_runs(canvas.prompt()) == expected
    canvas.fit()
    canvas.shoot(path.stem)

    canvas.drop(path)
    canvas.close_dialogs()
    assert [node["type"] for node in canvas.nodes() if not node["known"] or node["wrong"]] == []
    assert what_runs(canvas.prompt()) == expected
    assert canvas.errors == []


def test_quickstart_run_from_the_canvas_ends_with_pictures_on_it(canvas: Canvas) -> None:
    canvas.drop(ROOT / "workflows" / "quickstart.json")
    canvas.set_widgets("KSampler", steps=6)
    canvas.set_widgets("MotionPromptKSampler", steps=6)
    assert canvas.run() == "execution_success"
    shown = {"SaveAnimatedWEBP", "MotionPromptReport"}
    canvas.fit()  # what is out of sight is not drawn, and its pictures are not loaded
    canvas.page.wait_for_function(
        "types => window.app.graph.nodes.filter(node => types.includes(node.type))"
        ".every(node => node.imgs?.length && node.imgs.every(image => image.naturalWidth > 0))",
        arg=sorted(shown),
    )
    lines = canvas.view_of("MotionPromptReport")["text"].split("\n")
    assert re.fullmatch(r"done: \d+ of 6 steps guided, \d+ s", lines[0]) and "loss" in lines[1]
    sampler = canvas.view_of("MotionPromptKSampler")
    assert sampler["text"].split("\n") == lines and sampler["curves"] == 2
    for kind in ("MotionPromptReport", "MotionPromptKSampler"):
        canvas.wait_for_view(kind)
    canvas.page.wait_for_timeout(5000)  # animated pictures find their place with the next redraws
    canvas.shoot("quickstart_done")
    assert canvas.errors == []


def test_a_number_that_is_left_to_the_preset_says_so(canvas: Canvas) -> None:
    look = """([type, name, value]) => {
        const widget = LiteGraph.createNode(type).widgets.find(widget => widget.name === name)
        const before = widget._displayValue
        widget.value = value
        return [before, Number(widget._displayValue)]
    }"""
    for node, name, value in (("MotionPromptKSampler", "start", 0.25), ("MotionPromptSettings", "iterations", 4)):
        assert canvas.evaluate(look, [node, name, value]) == ["preset", value]
    steps = "() => LiteGraph.createNode('MotionPromptKSampler').widgets.find(w => w.name === 'steps')._displayValue"
    assert canvas.evaluate(steps) != "preset"


def test_help_is_in_the_users_language(canvas: Canvas) -> None:
    page = (ROOT / "web" / "docs" / "MotionPromptReport" / "zh.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert headings and "When to use it" in canvas.help_page("MotionPromptReport")
    try:
        canvas.change_setting("Comfy.Locale", "zh")
        shown = canvas.help_page("MotionPromptReport")
        picture = "document.querySelector('.node-help-content img')?.naturalWidth > 99"
        canvas.page.wait_for_function(picture)
        canvas.shoot("help_in_chinese")
    finally:
        canvas.change_setting("Comfy.Locale", "en")
    assert [heading for heading in headings if heading not in shown] == []


def test_a_missing_file_gets_the_dialog_that_names_its_folder(canvas: Canvas, tmp_path: Path) -> None:
    """The discriminator that a shared workflow was made with, under a name that this machine does not have."""
    text = (ROOT / "workflows" / "quickstart.json").read_text(encoding="utf-8")
    renamed = tmp_path / "renamed.json"
    renamed.write_text(text.replace("demo_discriminator.safetensors", "renamed.safetensors"), encoding="utf-8")
    canvas.drop(renamed)
    dialog = canvas.page.locator(".p-dialog").get_by_text("motionprompt / renamed.safetensors")
    details = canvas.page.get_by_text("View details")  # newer interfaces have a panel instead
    dialog.or_(details).first.wait_for()
    if details.count():
        details.first.click()
        canvas.page.get_by_text("renamed.safetensors", exact=True).first.wait_for()
        canvas.page.get_by_text("motionprompt", exact=True).first.wait_for()
    canvas.shoot("missing_model")
    canvas.close_dialogs()
