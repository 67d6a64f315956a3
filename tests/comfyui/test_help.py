"""Help that is true to the nodes: tooltips, a page per node, and the page on errors.

The lists of inputs and outputs are made from the nodes: `python -m scripts.make_help_pages` after a change. The
interface shows web/docs/<node>/<language>.md, and web/docs/<node>.md where there is none in the user's language; texts
that locales/<language>/nodeDefs.json does not have are the nodes' own. So translations are for people who speak the
language, whenever they come: what is there has to be in step, and nothing has to be there.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts.make_help_pages import LANGUAGES, LOCALES, PAGES, ROOT, locale, with_lists

TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
# What a text in each language has at least one character of.
SCRIPTS = {"zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff]", "ko": r"[\uac00-\ud7a3]"}


@pytest.fixture(scope="module")
def nodes(comfy) -> dict[str, dict[str, Any]]:
    """Every node by its id, as the server tells the interface."""
    found = [node.GET_NODE_INFO_V1() for node in comfy.module("nodes").NODES]
    assert found
    return {node["name"]: node for node in found}


def described(node: dict[str, Any]) -> dict[str, Any]:
    """A node's texts by the keys that the interface looks translations up with."""
    inputs = {}
    specs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}  # and not what is hidden
    for name, (_, *more) in specs.items():
        options = more[0] if more else {}
        inputs[name] = {"name": options.get("display_name") or name, "tooltip": options.get("tooltip")}
        if options.get("control_after_generate"):  # a second widget, which the interface adds
            inputs["control_after_generate"] = {"name": "control after generate"}
    outputs = zip(node["output_name"], node["output_tooltips"] or [], strict=bool(node["output_name"]))
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": inputs,
        "outputs": {str(i): {"name": name, "tooltip": tooltip} for i, (name, tooltip) in enumerate(outputs)},
    }


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """{"node/inputs/seed/name": "seed", ...} of nested dictionaries; an empty one stays, as a leaf."""
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {key: value for name, item in tree.items() for key, value in flat(item, f"{path}/{name}").items()}


@pytest.fixture(scope="module")
def english(nodes) -> dict[str, Any]:
    return flat({name: described(node) for name, node in nodes.items()})


def test_every_input_and_output_has_a_name_and_a_tooltip(english):
    empty = [path for path, text in english.items() if text != {} and not str(text or "").strip()]
    assert not empty, empty


def test_every_node_has_a_page_with_its_inputs_and_outputs(nodes):
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted(nodes)
    for name, node in nodes.items():
        page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {node['display_name']}\n"), name
        assert page.strip() == with_lists(page, node).strip(), f"{name}: run python -m scripts.make_help_pages"
        assert "\n## Inputs\n" in page or not inputs_of(node), name


def inputs_of(node: dict[str, Any]) -> list[str]:
    return [*node["input"].get("required", {}), *node["input"].get("optional", {})]


def test_comfyui_serves_the_pages(comfy, nodes):
    [folder] = [Path(path) for path in comfy.nodes.EXTENSION_WEB_DIRS.values() if Path(path).parent == ROOT]
    assert all((folder / "docs" / f"{name}.md").is_file() for name in nodes)


def test_pages_show_only_files_that_exist():
    for path in PAGES.rglob("*.md"):
        shown = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", path.read_text(encoding="utf-8"))
        files = [file for pair in shown for file in pair if file and not file.startswith("https://")]
        missing = [file for file in files if not (PAGES / file).is_file()]
        assert not missing, (path.name, missing)


def translated_pages() -> list[Any]:
    return [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in sorted(PAGES.glob("*/*.md"))]


@pytest.mark.parametrize("path", translated_pages())
def test_a_translated_page_tells_of_nothing_that_is_not_there(nodes, path):
    page, node, words = path.read_text(encoding="utf-8"), nodes[path.parent.name], LANGUAGES[path.stem]
    assert re.search(SCRIPTS[path.stem], page)
    assert f"\n## {words.inputs}\n" in page and f"\n## {words.outputs}\n" in page
    lists = re.findall(rf"^## (?:{words.inputs}|{words.outputs})\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    told = re.findall(r"^- `(\w+)`", "".join(lists), re.MULTILINE)
    assert set(told) <= {*inputs_of(node), *node["output_name"]}


@pytest.mark.parametrize("language", SCRIPTS)
def test_a_translation_is_of_something_that_is_there_and_in_its_language(english, language):
    texts = flat(locale(language))
    left_over = sorted(set(texts) - set(english))
    assert not left_over, left_over
    for path, text in texts.items():
        assert text == {} or str(text or "").strip(), path
        if path.endswith(("/tooltip", "/description")):
            assert re.search(SCRIPTS[language], text), (path, text)
    if language == "zh":
        assert not re.search(SCRIPTS["ja"] + "|" + SCRIPTS["ko"], json.dumps(texts, ensure_ascii=False))


@pytest.mark.parametrize("language", SCRIPTS)
def test_no_character_that_the_frontend_would_read_as_a_placeholder(language):
    bad = [path for path, text in flat(locale(language)).items() if re.search(r"[{}@|]", str(text or ""))]
    assert not bad, bad


def test_comfyui_reads_the_languages(comfy, tmp_path, monkeypatch):
    import folder_paths
    from app.custom_node_manager import CustomNodeManager

    shutil.copytree(LOCALES, tmp_path / "pack" / "locales")
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda name: [str(tmp_path)])
    read = CustomNodeManager().build_translations()
    assert set(read) == set(SCRIPTS)
    assert all(read[language]["nodeDefs"] == locale(language) for language in SCRIPTS)


def strings(*folders: str) -> list[str]:
    """Every string in the sources, with `...` where an f-string has a value."""
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            found += [template(node) for node in nodes if isinstance(node, (ast.Constant, ast.JoinedStr))]
    return [text for text in found if text]


def template(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(template(value) if isinstance(value, ast.Constant) else "..." for value in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def quoted_errors() -> list[str]:
    quotes = re.findall(r"^### `(.+)`$", TROUBLESHOOTING.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(quotes) > 20
    return quotes


def quotes(quote: str, text: str) -> bool:
    """Whether `quote` is a part of `text`; its `...` stands for anything."""
    parts = [re.escape(part.strip()) for part in quote.split("...") if part.strip()]
    return re.search(".*".join(parts), text, re.DOTALL) is not None


def test_every_error_on_the_troubleshooting_page_can_still_occur():
    texts = strings("nodes", "motionprompt_core", "motionprompt_tools")
    gone = [quote for quote in quoted_errors() if not any(quotes(quote, text) for text in texts)]
    assert not gone, gone


def test_every_error_of_the_nodes_is_on_the_troubleshooting_page():
    known, missing = quoted_errors(), []
    for path in sorted((ROOT / "nodes").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                text = template(node.exc.args[0])
                if text and not any(quotes(quote, text) for quote in known):
                    missing.append(f"{path.name}:{node.lineno}: {text}")
    assert not missing, missing
