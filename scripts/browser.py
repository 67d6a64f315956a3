"""ComfyUI's real interface in a Chromium of this machine, driven by playwright: for tests and for pictures of nodes.

    with open_canvas(server.url) as canvas:
        canvas.drop(path)
        canvas.run()

Screenshots go to output/browser in the repository: assert on the graph's state, look at the pictures.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / "output" / "browser"
CANDIDATES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 1000
PATIENCE = 120 * SECONDS


class NoBrowser(RuntimeError):
    """There is no Chromium or no playwright; the message says which."""


def find_browser() -> str:
    """Path of a Chromium.

    Raises:
        NoBrowser: there is none, or no playwright.
    """
    if importlib.util.find_spec("playwright") is None:
        raise NoBrowser("playwright is not installed")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CANDIDATES)), None)
    if not found:
        raise NoBrowser("no chromium on this machine (set CHROMIUM to its path)")
    return found


class Canvas:
    """One tab with the interface."""

    def __init__(self, page: Any, url: str):
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.set_default_timeout(PATIENCE)
        self.url = url
        self.prefix = ""  # of the names of screenshots
        self.open()
        # The first start shows the templates, at a time of its own; the start after it does not.
        self.change_setting("Comfy.TutorialCompleted", True)

    def open(self) -> None:
        self.page.goto(self.url)
        self.page.wait_for_function("window.app?.graph && window.app.extensionManager?.workflow?.activeWorkflow")
        self.close_dialogs()

    def change_setting(self, name: str, value: Any) -> None:
        """Change one of the interface's settings, and start it anew."""
        self.evaluate(
            "async ([name, value]) => await window.app.extensionManager.setting.set(name, value)",
            [name, value],
        )
        self.open()

    def use_nodes_2(self, on: bool) -> None:
        """Nodes 2.0, or the classic canvas."""
        name = "Comfy.VueNodes.Enabled"
        if self.evaluate("name => window.app.extensionManager.setting.get(name)", name) != on:
            self.change_setting(name, on)

    def evaluate(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def close_dialogs(self) -> None:
        """Whatever is open over the canvas, such as missing models."""
        self.evaluate(
            "() => { const dialog = window.app.extensionManager.dialog;"
            " for (const item of [...(dialog.dialogStack ?? [])]) dialog.closeDialog({key: item.key}) }"
        )
        self.page.keyboard.press("Escape")

    # -- workflows -------------------------------------------------------------------------------------------------

    def open_templates(self, pack: str) -> None:
        self.close_dialogs()
        self.evaluate("window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        self.page.get_by_text(pack, exact=False).first.click()

    def drop(self, path: Path) -> None:
        """Drag a file onto the canvas and let it go."""
        self._loading(
            lambda: self.evaluate(
                """([name, text]) => {
                    const data = new DataTransfer();
                    data.items.add(new File([text], name, {type: "application/json"}));
                    const canvas = document.querySelector("#graph-canvas");
                    const options = {dataTransfer: data, bubbles: true, cancelable: true, clientX: 700, clientY: 500};
                    canvas.dispatchEvent(new DragEvent("drop", options));
                }""",
                [path.name, path.read_text(encoding="utf-8")],
            )
        )

    def template(self, name: str) -> Any:
        """The card of a workflow in the list of templates, brought into view: pictures out of sight are not loaded."""
        card = self.page.locator(f'[data-testid="template-workflow-{name}"]').first
        card.scroll_into_view_if_needed()
        return card

    def click_template(self, name: str) -> None:
        self._loading(lambda: self.template(name).click())

    def _loading(self, action: Callable[[], object]) -> None:
        """Do what loads a workflow, and wait until its graph has replaced the old one."""
        self.evaluate("() => { window.app.graph.extra.motionprompt_old = true }")
        action()
        self.page.wait_for_function("window.app.graph.nodes.length && !window.app.graph.extra.motionprompt_old")
        self.page.wait_for_timeout(300)  # widgets made of HTML are put in place with the next frames

    def nodes(self) -> list[dict[str, Any]]:
        """What is on the canvas: type, title, bounds (title bar included), and whether anything is wrong with it."""
        return self.evaluate(
            """() => window.app.graph.nodes.map(node => ({
                id: node.id, type: node.type, title: node.title,
                bounds: [...node.boundingRect ?? node.getBounding()],
                known: node.type in window.LiteGraph.registered_node_types,
                wrong: !!node.has_errors,
                images: (node.imgs ?? []).filter(image => image.naturalWidth > 0).length,
                widgets: Object.fromEntries((node.widgets ?? []).map(widget => [widget.name, widget.value])),
            }))"""
        )

    def view_of(self, kind: str) -> dict[str, Any] | None:
        """What the pack shows on the first node of a type, or None: its text, number of curves, and pixels cut off."""
        return self.evaluate(
            """kind => {
                const node = window.app.canvas.graph.nodes.find(node => node.type === kind);
                const element = node.widgets?.find(widget => widget.name === "motionprompt_view")?.element;
                const text = element?.querySelector("p");
                if (!text?.isConnected) return null;
                const below = text.getBoundingClientRect().bottom - element.getBoundingClientRect().bottom;
                const shown = text.getBoundingClientRect().height > 0;
                return { text: text.textContent, curves: element.querySelectorAll("path[stroke-linejoin]").length,
                         shown, cut_off: Math.max(0, Math.round(below)), tags: element.querySelectorAll("p *").length };
            }""",
            kind,
        )

    def wait_for_view(self, kind: str) -> dict[str, Any]:
        """`view_of`, as soon as all of it is on the screen: interfaces put it in place with later frames."""
        deadline = time.monotonic() + PATIENCE / SECONDS
        while not (view := self.view_of(kind)) or view["cut_off"] or not view["shown"]:
            if time.monotonic() > deadline:
                raise AssertionError(f"{kind} shows {view}")
            self.page.wait_for_timeout(200)
        return view

    def shown_values(self, kind: str) -> dict[str, str]:
        """What stands on the menus of the first node of a type, by their names, in either way of drawing nodes."""
        return self.evaluate(
            """kind => {
                const node = window.app.canvas.graph.nodes.find(node => node.type === kind);
                const drawn = document.querySelector(`.lg-node[data-node-id="${node.id}"]`);
                const menus = node.widgets.filter(widget => widget.type === "combo");
                const element = name => [...drawn.querySelectorAll("[role=combobox]")].find(
                    box => box.closest(".lg-node-widget")?.innerText.startsWith(name));
                return Object.fromEntries(menus.map(widget => [widget.name,
                    drawn ? element(widget.name)?.innerText.trim() : String(widget._displayValue ?? widget.value)]));
            }""",
            kind,
        )

    def prompt(self) -> dict[str, dict[str, Any]]:
        """What Run would send."""
        return json.loads(self.evaluate("async () => JSON.stringify((await window.app.graphToPrompt()).output)"))

    def show_view(self, kind: str, lines: list[str], workflow: str | None = None, inside: str = "") -> None:
        """What the server's message does that gives the first node of a type this to show, with curves.

        Args:
            workflow: whose node it is, if not the open one's. inside: "<id of the subgraph's node>:".
        """
        self.evaluate(
            """([kind, lines, workflow, inside]) => {
                const { app } = window;
                const node = `${inside}${app.canvas.graph.nodes.find(node => node.type === kind).id}`;
                const curves = { loss: [3, 2, null, 1], phi: [0.1, 0.3, 0.2, 0.6], step: [4, 4, 5, 5] };
                const detail = { node, workflow: workflow ?? (app.rootGraph ?? app.graph).id, lines, curves };
                app.api.dispatchEvent(new CustomEvent("motionprompt.view", { detail }));
            }""",
            [kind, lines, workflow, inside],
        )

    def to_subgraph(self, kind: str) -> str:
        """Put the first node of a type into a subgraph and open that; returns the id of the subgraph's node."""
        outer = self.evaluate(
            """kind => {
                const { app } = window;
                const node = app.graph.nodes.find(node => node.type === kind);
                const { subgraph, node: outer } = app.graph.convertToSubgraph(new Set([node]));
                app.canvas.openSubgraph(subgraph, outer);
                return String(outer.id);
            }""",
            kind,
        )
        self.page.wait_for_timeout(500)  # the inner nodes are put in place with the next frames
        return outer

    def leave_subgraph(self, outer: str) -> str:
        """Back to the graph that the subgraph's node is in; returns that node's type."""
        kind = self.evaluate(
            """id => {
                const { app } = window;
                const root = app.rootGraph ?? app.graph.rootGraph;
                app.canvas.setGraph(root);
                return root.getNodeById(id).type;
            }""",
            outer,
        )
        self.page.wait_for_timeout(500)
        return kind

    def set_widgets(self, kind: str, **values: Any) -> None:
        """Turn widgets on the canvas, of every node of a type."""
        changed = self.evaluate(
            """([kind, values]) => {
                let changed = 0;
                for (const node of window.app.graph.nodes.filter(node => node.type === kind))
                    for (const widget of node.widgets.filter(widget => widget.name in values)) {
                        widget.value = values[widget.name];
                        widget.callback?.(widget.value);
                        changed++;
                    }
                return changed;
            }""",
            [kind, values],
        )
        assert changed, f"no {kind} with {', '.join(values)} on the canvas"

    def run(self) -> str:
        """Press Run; returns how it ended: execution_success, execution_error or execution_interrupted.

        What was said with it is in `window.detail`.
        """
        self.evaluate(
            """() => { window.ended = null;
                for (const name of ["execution_success", "execution_error", "execution_interrupted"])
                    window.app.api.addEventListener(name, ({detail}) => Object.assign(window, {ended: name, detail}),
                                                    {once: true}) }"""
        )
        self.page.wait_for_timeout(500)  # a dialog about missing files comes late
        self.close_dialogs()
        self.page.locator('[data-testid="queue-button"] button, button[data-testid="queue-button"]').first.click()
        self.page.wait_for_function("window.ended", timeout=600 * SECONDS)
        return self.evaluate("window.ended")

    # -- help ------------------------------------------------------------------------------------------------------

    def help_page(self, kind: str) -> str:
        """The text of a node's help, as a click on the node and on its "i" shows it."""
        self.close_dialogs()
        x, y = self.evaluate(
            """kind => {
                const {app, LiteGraph} = window;
                app.graph.clear();
                const node = LiteGraph.createNode(kind);
                node.pos = [300, 100];
                app.graph.add(node);
                const {ds, canvas} = app.canvas;
                Object.assign(ds, {scale: 1, offset: [0, 100]});
                app.canvas.setDirty(true, true);
                const {left, top} = canvas.getBoundingClientRect();
                return [left + node.pos[0] + node.size[0] / 2, top + node.pos[1] + 100 - 12];
            }""",
            kind,
        )
        self.page.wait_for_timeout(700)
        self.page.mouse.click(x, y)
        self.page.locator('[data-testid="info-button"]').first.click()
        page = self.page.locator(".node-help-content").first
        page.locator("h1, img").first.wait_for()
        return page.inner_text()

    # -- pictures --------------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """The whole graph in view."""
        self.evaluate("window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(1200)

    def shoot_node(self, kind: str, path: Path, scale: float = 1.0) -> None:
        """A picture of one fresh node, alone."""
        self.close_dialogs()
        self.page.wait_for_function("!document.querySelector('.p-dialog')")
        x, y, width, height = self.evaluate(
            """([kind, scale]) => {
                const {app, LiteGraph} = window;
                app.graph.clear();
                const node = LiteGraph.createNode(kind);
                node.pos = [40, 60];
                app.graph.add(node);
                const size = node.computeSize();
                node.setSize([Math.max(size[0], 320), size[1]]);
                const sidebar = 80;
                Object.assign(app.canvas.ds, {scale, offset: [sidebar / scale, 120 / scale]});
                app.canvas.setDirty(true, true);
                const [left, top] = [app.canvas.canvas.getBoundingClientRect().left,
                                     app.canvas.canvas.getBoundingClientRect().top];
                const [x, y] = [(40 + sidebar / scale) * scale + left, (60 - 30 + 120 / scale) * scale + top];
                return [x, y, node.size[0] * scale, (node.size[1] + 30) * scale];
            }""",
            [kind, scale],
        )
        self.page.wait_for_timeout(700)
        clip = {"x": x - 12, "y": y - 12, "width": width + 24, "height": height + 24}
        self.page.screenshot(path=path, clip=clip)

    def shoot(self, name: str) -> Path:
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{self.prefix}{name}.png"
        self.page.screenshot(path=path)
        return path


@contextmanager
def open_canvas(url: str, width: int = 1600, height: int = 1000) -> Iterator[Canvas]:
    """A browser with one tab on a server's interface."""
    browser_path = find_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield Canvas(browser.new_page(viewport={"width": width, "height": height}), url)
        finally:
            browser.close()
