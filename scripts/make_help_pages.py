"""Writes what the help pages say of inputs, outputs and presets, so that each text stands in one place: the node.

    python -m scripts.make_help_pages            # the English pages
    python -m scripts.make_help_pages zh ja ko   # translations too: from locales/, else in English

Starts a ComfyUI to ask the nodes. Only the sections Inputs, Outputs and Presets are written; the rest is by hand.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionprompt_core.guidance.presets import PRESETS
from motionprompt_core.guidance.settings import KNOBS

from .comfy_server import ComfyServer
from .locate import comfyuis

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "web" / "docs"
LOCALES = ROOT / "locales"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


@dataclass(frozen=True)
class Language:
    """How a language's pages write a list.

    Attributes:
        inputs, outputs: the sections' headings. optional: what stands behind a socket that may be left free.
        item: a list's item, of {identifier}, {label} (in brackets, with `between` before `optional`) and {text}.
    """

    inputs: str
    outputs: str
    optional: str
    brackets: str = "({})"
    before: str = " "
    between: str = ", "
    colon: str = ": "
    wrapped: bool = False

    def item(self, identifier: str, label: str, text: str, optional: bool) -> str:
        same = label.lower() == identifier.lower()
        notes = ([] if same else [label]) + ([self.optional] if optional else [])
        bracket = self.before + self.brackets.format(self.between.join(notes)) if notes else ""
        line = f"- `{identifier}`{bracket}{self.colon}{text}"
        return textwrap.fill(line, 118, subsequent_indent="  ", break_on_hyphens=False) if self.wrapped else line


LANGUAGES = {
    "en": Language("Inputs", "Outputs", "optional", wrapped=True),
    "zh": Language("\u8f93\u5165", "\u8f93\u51fa", "\u53ef\u9009", "\uff08{}\uff09", "", "\uff0c", "\uff1a"),
    "ja": Language("\u5165\u529b", "\u51fa\u529b", "\u7701\u7565\u53ef", "\uff08{}\uff09", "", "\u3001", "\uff1a"),
    "ko": Language("\uc785\ub825", "\ucd9c\ub825", "\uc120\ud0dd", before=""),
}


def locale(language: str) -> dict[str, Any]:
    """A language's texts by node; empty for English, whose texts are the nodes'."""
    path = LOCALES / language / "nodeDefs.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def with_lists(page: str, node: Mapping[str, Any], language: str = "en", texts: Mapping[str, Any] | None = None) -> str:
    """A page with its sections Inputs, Outputs and Presets anew.

    Args:
        node: the node as the server tells it (/object_info). texts: the node's in `locale(language)`.
    """
    words, texts = LANGUAGES[language], texts or {}
    inputs = "\n".join(_inputs(node, words, texts.get("inputs", {})))
    outputs = "\n".join(_outputs(node, words, texts.get("outputs", {})))
    page = _replace(page, words.inputs, inputs)
    page = _replace(page, words.outputs, outputs)
    return _replace(page, "Presets", presets()) if language == "en" else page


def presets() -> str:
    """What each preset is for, what is known of it, and its numbers."""
    parts = [textwrap.fill(f"**{name}**: {p.about} Evidence: {p.evidence}", 118) for name, p in PRESETS.items()]
    rows = [["setting", *PRESETS], ["---"] * (1 + len(PRESETS))]
    for name in KNOBS:
        values = [getattr(preset.settings, name) for preset in PRESETS.values()]
        rows.append([name, *(f"{v:g}" if isinstance(v, float) else str(v) for v in values)])
    return "\n\n".join([*parts, "\n".join(f"| {' | '.join(row)} |" for row in rows)])


def _inputs(node: Mapping[str, Any], words: Language, texts: Mapping[str, Any]) -> list[str]:
    lines = []
    for group in ("required", "optional"):
        for name in node["input_order"].get(group) or []:
            kind, options = node["input"][group][name][0], (*node["input"][group][name], {})[1] or {}
            text = texts.get(name, {})
            label = text.get("name", options.get("display_name") or name).removesuffix(f" ({name})")
            optional = group == "optional" and not isinstance(kind, list) and kind not in WIDGETS
            lines.append(words.item(name, label, text.get("tooltip") or options.get("tooltip") or "", optional))
    return lines


def _outputs(node: Mapping[str, Any], words: Language, texts: Mapping[str, Any]) -> list[str]:
    lines = []
    tooltips = node.get("output_tooltips") or [""] * len(node["output_name"])
    for number, (name, tooltip) in enumerate(zip(node["output_name"], tooltips, strict=True)):
        text = texts.get(str(number), {})
        lines.append(words.item(name, text.get("name", name), text.get("tooltip") or tooltip or "", False))
    return lines


def _replace(page: str, heading: str, body: str) -> str:
    """The page with another body of one section; as it is if it has no such section."""
    pattern = rf"(^## {heading}\n).*?(?=^## |\Z)"
    return re.sub(pattern, lambda found: f"{found[1]}\n{body}\n\n", page, flags=re.MULTILINE | re.DOTALL)


def main(languages: list[str]) -> None:
    with ComfyServer(comfyuis()[0], [ROOT]) as server:
        nodes = {name: node for name, node in server.object_info().items() if name.startswith("MotionPrompt")}
    for language in ["en", *languages]:
        texts = locale(language)
        for name, node in nodes.items():
            path = PAGES / f"{name}.md" if language == "en" else PAGES / name / f"{language}.md"
            if path.is_file():
                page = with_lists(path.read_text(encoding="utf-8"), node, language, texts.get(name))
                path.write_text(page.rstrip("\n") + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
