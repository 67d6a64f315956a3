"""docs/evidence.md from the committed summaries, so that no figure in its tables is typed by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from .report import draw, markdown

FOLDER = Path("docs/evidence")
TITLES = {
    "quick": "Guidance against three controls",
    "peers": "Guidance against its peers",
    "paper": "The paper's ablations",
    "modes": "What the ways to save cost in quality",
}


def evidence(folder: Path) -> str:
    """The page: introduction.md, then a section for each summary there is.

    Raises:
        FileNotFoundError: there is no introduction.
    """
    introduction = folder / "introduction.md"
    if not introduction.is_file():
        raise FileNotFoundError(f"there is no {introduction}. Run the command in the repository's top folder.")
    parts = [introduction.read_text(encoding="utf-8").rstrip()]
    for suite, title in TITLES.items():
        path = folder / f"{suite}.json"
        if path.is_file():
            summary = json.loads(path.read_text(encoding="utf-8"))
            plot = f"{folder.name}/{suite}.png"
            parts.append(f"## {title}\n\n{markdown(summary, plot).rstrip()}")
    return "\n\n".join(parts) + "\n"


def write_evidence(folder: Path, summaries: list[Path]) -> None:
    """Takes in new summaries, draws every plot and writes the page beside the folder, as its name with .md."""
    for path in summaries:
        suite = json.loads(path.read_text(encoding="utf-8"))["suite"]
        shutil.copyfile(path, folder / f"{suite}.json")
    for suite in TITLES:
        path = folder / f"{suite}.json"
        if path.is_file():
            draw(json.loads(path.read_text(encoding="utf-8")), folder / f"{suite}.png")
    page = folder.with_suffix(".md")
    page.write_text(evidence(folder), encoding="utf-8", newline="\n")
    print(f"wrote {page}")
