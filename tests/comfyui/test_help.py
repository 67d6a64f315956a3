"""Help that is true to the nodes: tooltips, a page per node, four languages, and the page on errors.

The interface shows web/docs/<node>/<language>.md, and web/docs/<node>.md where there is none in the user's language.
Both name their pictures from web/docs.

After a change of a node's text, `MOTIONPROMPT_WRITE_ENGLISH=1 pytest tests/comfyui/test_help.py` writes
locales/en/nodeDefs.json anew from the schemas; the other languages are for people who speak them.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "web" / "docs"
LOCALES = ROOT / "locales"
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
# What a text in each language has at least one character of.
SCRIPTS = {"zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff]", "ko": r"[\uac00-\ud7a3]"}
LANGUAGES = ("en", *SCRIPTS)
HEADINGS = {
    "zh": ("\u8f93\u5165", "\u8f93\u51fa"),
    "ja": ("\u5165\u529b", "\u51fa\u529b"),
    "ko": ("\uc785\ub825", "\ucd9c\ub825"),
}


@pytest.fixture(scope="module")
def schemas(comfy) -> dict[str, Any]:
    """Every node's schema by its id."""
    found = [node.define_schema() for node in comfy.module("nodes").NODES]
    assert found
    return {schema.node_id: schema for schema in found}


@pytest.fixture(scope="module")
def english(schemas) -> dict[str, Any]:
    """What locales/en/nodeDefs.json has to hold: the schemas' own text, as ComfyUI's frontend looks it up."""
    return {name: text_of(schema) for name, schema in schemas.items()}


def text_of(schema: Any) -> dict[str, Any]:
    inputs = {}
    for item in schema.inputs:
        inputs[item.id] = {"name": item.display_name or item.id, "tooltip": item.tooltip}
        if getattr(item, "control_after_generate", None):  # a second widget, which the frontend adds
            inputs["control_after_generate"] = {"name": "control after generate"}
    outputs = {str(i): {"name": item.display_name, "tooltip": item.tooltip} for i, item in enumerate(schema.outputs)}
    text = {"display_name": schema.display_name, "description": schema.description}
    return {**text, "inputs": inputs, "outputs": outputs}


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """{"node/inputs/seed/name": "seed", ...} of nested dictionaries; an empty one stays, as a leaf."""
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {key: value for name, item in tree.items() for key, value in flat(item, f"{path}/{name}").items()}


def locale(language: str) -> dict[str, Any]:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def test_every_input_and_output_has_a_name_and_a_tooltip(english):
    empty = [path for path, text in flat(english).items() if text != {} and not str(text or "").strip()]
    assert not empty, empty


def bullets(page: str, heading: str) -> list[str]:
    """Names in backticks that begin the bullets of a page's section, its subsections included."""
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return re.findall(r"^- `(\w+)`", section[1], re.MULTILINE) if section else []


def test_every_node_has_a_page_that_names_its_inputs_and_outputs(schemas):
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted(schemas)
    for name, schema in schemas.items():
        page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {schema.display_name}\n"), name
        assert bullets(page, "Inputs") == [item.id for item in schema.inputs], name
        assert bullets(page, "Outputs") == [item.display_name for item in schema.outputs], name


def test_comfyui_serves_the_pages(comfy, schemas):
    [folder] = [Path(path) for path in comfy.nodes.EXTENSION_WEB_DIRS.values() if Path(path).parent == ROOT]
    assert all((folder / "docs" / f"{name}.md").is_file() for name in schemas)


def test_every_page_shows_its_node():
    """`python -m scripts.make_help_pictures` takes the pictures."""
    for page in PAGES.glob("*.md"):
        assert f"](images/{page.stem}.png)" in page.read_text(encoding="utf-8"), page.name


def test_pages_show_only_files_that_exist():
    for path in PAGES.rglob("*.md"):
        shown = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", path.read_text(encoding="utf-8"))
        files = [file for pair in shown for file in pair if file and not file.startswith("https://")]
        missing = [file for file in files if not (PAGES / file).is_file()]
        assert not missing, (path.name, missing)


@pytest.mark.parametrize("language", SCRIPTS)
def test_every_page_is_in_step_in_every_language(schemas, language):
    labels: dict[str, set[str]] = {}
    for node in locale(language).values():
        for identifier, text in node["inputs"].items():
            labels.setdefault(identifier, set()).add(text["name"])
    for name in schemas:
        page = (PAGES / name / f"{language}.md").read_text(encoding="utf-8")
        english = (PAGES / f"{name}.md").read_text(encoding="utf-8")
        texts = locale(language)[name]
        assert page.startswith(f"# {texts['display_name']}\n"), name
        assert re.search(SCRIPTS[language], page), name
        for heading, translated in zip(("Inputs", "Outputs"), HEADINGS[language], strict=True):
            assert bullets(page, translated) == bullets(english, heading), (name, heading)
        for pattern in (r"^#+ ", r"^ *- ", r"\]\([^)\s]+\)"):  # headings, bullets, links and pictures
            found, wanted = (re.findall(pattern, text, re.MULTILINE) for text in (page, english))
            assert found == wanted, (name, pattern)
        wanted = set(re.findall(r"`[^`]+`", english))
        assert set(re.findall(r"`[^`]+`", page)) == wanted, (name, wanted)
        words = re.findall(r"\b[a-z]\w*_\w+\b|\b\d+(?:\.\d+)?\b", english)
        called = {word: labels.get(word, set()) for word in words if word not in page}
        lost = [word for word, names in called.items() if not any(label in page for label in names)]
        assert not lost, (name, lost)
        unclosed = re.search(r"[)\u201d\u300d\uff09]\*+\w", page)  # after a sign, the stars would be shown
        assert not unclosed, (name, unclosed)


@pytest.mark.parametrize("language", SCRIPTS)
def test_a_page_calls_inputs_and_outputs_as_the_node_does(schemas, language):
    for name, schema in schemas.items():
        page = (PAGES / name / f"{language}.md").read_text(encoding="utf-8")
        texts = locale(language)[name]
        called = {item.id: texts["inputs"][item.id]["name"] for item in schema.inputs}
        labels = [*called.items()]
        labels += [(item.display_name, texts["outputs"][str(i)]["name"]) for i, item in enumerate(schema.outputs)]
        for identifier, label in labels:
            label = label.removesuffix(f" ({identifier})")
            line = rf"^- `{identifier}`.?{'' if label.lower() == identifier else re.escape(label)}"
            assert re.search(line, page, re.MULTILINE), (name, identifier, label)


def test_english_is_the_text_of_the_schemas(english):
    path = LOCALES / "en" / "nodeDefs.json"
    if os.environ.get("MOTIONPROMPT_WRITE_ENGLISH"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(english, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    assert locale("en") == english, "see the top of this file for how to write it anew"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_a_text_for_everything_and_for_nothing_else(english, language):
    texts, wanted = flat(locale(language)), flat(english)
    missing, left_over = sorted(set(wanted) - set(texts)), sorted(set(texts) - set(wanted))
    assert not missing, missing
    assert not left_over, left_over
    empty = [path for path, text in texts.items() if wanted[path] != {} and not str(text or "").strip()]
    assert not empty, empty


@pytest.mark.parametrize("language", SCRIPTS)
def test_a_translation_is_in_its_language_and_keeps_numbers_and_identifiers(english, language):
    texts = flat(locale(language))
    for path, text in flat(english).items():
        if path.endswith(("/tooltip", "/description")):
            assert re.search(SCRIPTS[language], texts[path]), (path, texts[path])
            words = re.findall(r"\b\w+_\w+\b|\d+(?:\.\d+)?", text)
            lost = [word for word in words if word not in texts[path]]
            assert not lost, (path, lost)
    if language == "zh":
        assert not re.search(SCRIPTS["ja"] + "|" + SCRIPTS["ko"], json.dumps(texts, ensure_ascii=False))


@pytest.mark.parametrize("language", SCRIPTS)
def test_the_same_text_is_translated_the_same_way(english, language):
    texts, seen = flat(locale(language)), {}
    for path, text in flat(english).items():
        if path.endswith("/tooltip"):
            assert seen.setdefault(text, texts[path]) == texts[path], path


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_character_that_the_frontend_would_read_as_a_placeholder(language):
    bad = [path for path, text in flat(locale(language)).items() if re.search(r"[{}@|]", str(text or ""))]
    assert not bad, bad


def test_comfyui_reads_the_languages(comfy, tmp_path, monkeypatch):
    import folder_paths
    from app.custom_node_manager import CustomNodeManager

    shutil.copytree(LOCALES, tmp_path / "pack" / "locales")
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda name: [str(tmp_path)])
    read = CustomNodeManager().build_translations()
    assert set(read) == set(LANGUAGES)
    assert all(read[language]["nodeDefs"] == locale(language) for language in LANGUAGES)


def test_the_published_package_keeps_pages_and_languages():
    """.comfyignore is in .gitignore's format, so git can say what it leaves out."""
    files = [path for folder in (ROOT / "web", LOCALES) for path in folder.rglob("*") if path.is_file()]
    files = [path.relative_to(ROOT).as_posix() for path in (*files, TROUBLESHOOTING)]
    command = ["git", "-c", "core.excludesFile=.comfyignore", "check-ignore", "--no-index", "--", "tests/x", *files]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    except OSError:
        pytest.skip("no git")
    if found.returncode not in (0, 1):
        pytest.skip("not a git checkout")
    assert found.stdout.split() == ["tests/x"]


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
    texts = strings("nodes", "motionprompt_core")
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
