"""docs/evidence.md from the committed summaries, so that no figure in its tables is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .report import draw, markdown

FOLDER = Path("docs/evidence")
COLUMNS = ("variant", "against", "metric", "mean", "low", "high", "seeds")  # of a difference, as it is kept
WIDTH = 120
TITLES = {
    "quick": "Guidance against three controls",
    "baselines": "Guidance against baselines",
    "paper": "The paper's ablations",
    "tweedie": "A discriminator that has not seen estimates",
    "general": "The general discriminator, and preserve_motion",
    "modes": "What the ways to save cost in quality",
    "estimate": "Correcting the estimate",
    "estimate_baselines": "Correcting the estimate, and everything else",
    "estimate_place": "The loss, the place and the judge",
    "estimate_8": "Correcting the estimate in 8 steps",
    "estimate_4": "Correcting the estimate in 4 steps",
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
            summary = from_text(path.read_text(encoding="utf-8"))
            plot = f"{folder.name}/{name}.png"
            parts.append(f"## {title}\n\n{markdown(summary, plot).rstrip()}")
    return "\n\n".join(parts) + "\n"


def to_text(summary: dict[str, Any]) -> str:
    """A summary as it is kept: JSON with short numbers, and each difference a line of `COLUMNS`."""
    rows = [[item[name] for name in COLUMNS] for item in summary["differences"]]
    return _compact({**summary, "differences": rows}) + "\n"


def from_text(text: str) -> dict[str, Any]:
    """The summary that `to_text` wrote."""
    summary = json.loads(text)
    return {**summary, "differences": [dict(zip(COLUMNS, row, strict=True)) for row in summary["differences"]]}


def short(number: float) -> float:
    """The number with five digits, or as many more as it takes to be printed the same with fewer."""

    def printed(value: float) -> list[str]:
        return [f"{value:.{digits}{kind}}" for digits in range(5) for kind in "fg"]

    candidates = (float(f"{number:.{digits}g}") for digits in range(5, 17))
    return next((value for value in candidates if printed(value) == printed(number)), number)


def _compact(value: Any, indent: int = 0) -> str:
    """JSON in which whatever fits on a line is on one line."""
    if isinstance(value, float):
        return json.dumps(short(value))
    if not isinstance(value, (dict, list)):
        return json.dumps(value)
    named = isinstance(value, dict)
    items = value.items() if isinstance(value, dict) else [("", item) for item in value]
    parts = [(f"{json.dumps(key)}: " if named else "") + _compact(item, indent + 1) for key, item in items]
    opening, closing = "{}" if named else "[]"
    line = opening + ", ".join(parts) + closing
    if len(line) + indent <= WIDTH and "\n" not in line:
        return line
    inside = "\n" + " " * (indent + 1)
    return opening + inside + ("," + inside).join(parts) + "\n" + " " * indent + closing


def write_evidence(folder: Path, summaries: list[str]) -> None:
    """Takes in new summaries, draws every plot and writes the page beside the folder, as its name with .md.

    Args:
        summaries: paths of a summary.json, which goes by its suite's name, or NAME=PATH with a name of `TITLES`.

    Raises:
        ValueError: a name is unknown.
    """
    for given in summaries:
        name, _, path = given.rpartition("=")
        summary = json.loads(Path(path).read_text(encoding="utf-8"))
        name = name or summary["suite"]
        if name not in TITLES:
            raise ValueError(f"evidence: the name {name!r} is unknown, expected one of {', '.join(TITLES)}.")
        (folder / f"{name}.json").write_text(to_text(summary), encoding="utf-8", newline="\n")
    for name in TITLES:
        path = folder / f"{name}.json"
        if path.is_file():
            draw(from_text(path.read_text(encoding="utf-8")), folder / f"{name}.png")
    page = folder.with_suffix(".md")
    page.write_text(evidence(folder), encoding="utf-8", newline="\n")
    print(f"wrote {page}")
