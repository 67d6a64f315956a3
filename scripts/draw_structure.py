"""Draws which room of the project imports which, from the imports themselves.

    python -m scripts.draw_structure [docs/images/structure.png]

An arrow goes from a room to what it imports; one that a longer way shows already is left out. Rooms stand above
everything that they import, so that a circle has no place to stand: it is an error.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "structure.png"
SOURCES = ("nodes", "motionprompt_core", "motionprompt_tools", "research")
COLOURS = {"nodes": "#a1c9a1", "motionprompt_core": "#a9c4de", "motionprompt_tools": "#cbb7d9", "research": "#e6cf9c"}
COMMANDS = ("/__main__", "/commandline")
Room = str


def room_of(module: str) -> Room:
    """The room of a dotted module: a sub-package, or the file itself where there is none."""
    parts = module.split(".")
    if parts[0] == "nodes":
        return "nodes/host" if parts[1:2] == ["host"] else "nodes"
    return parts[0] if parts[0] == "motionprompt_tools" else "/".join(parts[:2])


def modules() -> dict[str, Path]:
    """Every module of the pack and of research/ by its dotted name; a package goes by its folder's."""
    paths = (path for source in SOURCES for path in sorted((ROOT / source).rglob("*.py")))
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


def imported(name: str, path: Path, known: Iterable[str]) -> set[str]:
    """The project's modules that one imports, at any depth of its code."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
            found |= {target, *(f"{target}.{alias.name}" for alias in node.names)}
    return found & set(known)


def rooms() -> tuple[dict[Room, int], dict[Room, set[Room]]]:
    """Lines of code by room, and which rooms each imports."""
    known = modules()
    lines: dict[Room, int] = {}
    arrows: dict[Room, set[Room]] = {}
    for name, path in known.items():
        room = room_of(name)
        lines[room] = lines.get(room, 0) + len(path.read_text(encoding="utf-8").splitlines())
        arrows.setdefault(room, set()).update({room_of(other) for other in imported(name, path, known)} - {room})
    # Not the packages around them, nor the command lines, which import what they offer.
    alone = ("nodes", "motionprompt_tools")
    kept = {room for room in lines if ("/" in room or room in alone) and not room.endswith(COMMANDS)}
    return {room: lines[room] for room in kept}, {room: arrows[room] & kept for room in kept}


def levels(arrows: Mapping[Room, set[Room]]) -> dict[Room, int]:
    """How far above the ground each room stands: 0 imports nothing.

    Raises:
        ValueError: rooms import each other in a circle.
    """
    found: dict[Room, int] = {}
    while len(found) < len(arrows):
        ready = {room for room in arrows if room not in found and arrows[room] <= set(found)}
        if not ready:
            raise ValueError(
                f"Rooms that import each other in a circle: {', '.join(sorted(set(arrows) - set(found)))}."
            )
        found |= {room: 1 + max((found[other] for other in arrows[room]), default=-1) for room in ready}
    return found


def reachable(room: Room, arrows: Mapping[Room, set[Room]]) -> set[Room]:
    return set().union(*({other} | reachable(other, arrows) for other in arrows[room]), set())


def direct(arrows: Mapping[Room, set[Room]]) -> dict[Room, set[Room]]:
    """The arrows that no longer way shows already."""
    return {
        room: {o for o in others if not any(o in reachable(third, arrows) for third in others - {o})}
        for room, others in arrows.items()
    }


def places(arrows: Mapping[Room, set[Room]]) -> dict[Room, tuple[float, int]]:
    """Where each room stands: the pack on the left, research/ on the right, and the higher the more it rests on."""
    rows: dict[tuple[int, bool], list[Room]] = {}
    for room, level in sorted(levels(arrows).items()):
        rows.setdefault((level, room.startswith("research")), []).append(room)
    found: dict[Room, tuple[float, int]] = {}
    for (level, research), row in rows.items():
        left, width = (0.66, 0.34) if research else (0.0, 0.62)
        found |= {room: (left + width * (number + 0.5) / len(row), level) for number, room in enumerate(row)}
    return found


def draw(path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    lines, arrows = rooms()
    centre = places(arrows)
    height = 1 + max(level for _, level in centre.values())
    figure = Figure(figsize=(11, 1.0 * height + 0.6), dpi=100)
    axes: Any = figure.add_axes((0, 0, 1, 1))
    for room, (x, y) in centre.items():
        source, _, name = room.rpartition("/")
        colour = COLOURS[(source or room).split("/")[0]]
        shape = {"boxstyle": "round,pad=0.008", "mutation_aspect": height, "facecolor": colour, "edgecolor": "#555555"}
        axes.add_patch(FancyBboxPatch((x - 0.05, y - 0.18), 0.1, 0.36, zorder=2, **shape))
        title = room.removeprefix("motionprompt_") if source in ("", "nodes") else name
        axes.text(x, y, f"{title}\n{lines[room] / 1000:.1f}k lines", ha="center", va="center", fontsize=8, zorder=3)
    for room, others in direct(arrows).items():
        (x, y), arrow = centre[room], {"arrowstyle": "-|>", "lw": 0.9, "color": COLOURS[room.split("/")[0]]}
        for other in others:
            to_x, to_y = centre[other]
            axes.annotate("", (to_x, to_y + 0.24), (x, y - 0.24), arrowprops=arrow, zorder=1)
    for source, x in (("nodes", 0.02), ("motionprompt_core", 0.09), ("motionprompt_tools", 0.26), ("research", 0.68)):
        axes.text(x, height - 0.5, f"{source}/", backgroundcolor=COLOURS[source], fontsize=9, va="center")
    axes.set(xlim=(0, 1), ylim=(-0.5, height - 0.2))
    axes.axis("off")
    figure.savefig(path, facecolor="white", metadata={"Software": None})
    print(f"wrote {path}")


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE)
