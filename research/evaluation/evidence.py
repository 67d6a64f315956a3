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
    "tweedie": "A discriminator that has not seen estimates",
    "general": "The general discriminator, and preserve_motion",
    "modes": "What the ways to save cost in quality",
}


def evidence(folder: Path) -> str:
    """The page: introduction.md, then a section for each summary there is, NAME.json of `TITLES`.

    Raises:
        FileNotFoundError: there is no introduction.
    """
    introduction = folder / "introduction.md"
    if not introduction.is_file():
        raise FileNotFoundError(f"there is no {introduction}. Run the command in the repository's top folder.")
    parts = [introduction.read_text(encoding="utf-8").rstrip()]
    for name, title in TITLES.items():
        path = folder / f"{name}.json"
        if path.is_file():
            summary = json.loads(path.read_text(encoding="utf-8"))
            plot = f"{folder.name}/{name}.png"
            parts.append(f"## {title}\n\n{markdown(summary, plot).rstrip()}")
    return "\n\n".join(parts) + "\n"


def write_evidence(folder: Path, summaries: list[str]) -> None:
    """Takes in new summaries, draws every plot and writes the page beside the folder, as its name with .md.

    Args:
        summaries: paths of a summary.json, which goes by its suite's name, or NAME=PATH with a name of `TITLES`.

    Raises:
        ValueError: a name is unknown.
    """
    for given in summaries:
        name, _, path = given.rpartition("=")
        name = name or json.loads(Path(path).read_text(encoding="utf-8"))["suite"]
        if name not in TITLES:
            raise ValueError(f"evidence: the name {name!r} is unknown, expected one of {', '.join(TITLES)}.")
        shutil.copyfile(path, folder / f"{name}.json")
    for name in TITLES:
        path = folder / f"{name}.json"
        if path.is_file():
            draw(json.loads(path.read_text(encoding="utf-8")), folder / f"{name}.png")
    page = folder.with_suffix(".md")
    page.write_text(evidence(folder), encoding="utf-8", newline="\n")
    print(f"wrote {page}")
