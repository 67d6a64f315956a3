"""Takes the pictures of the nodes that their help pages show, from the real interface.

    python -m scripts.make_help_pictures [node ids]

Needs a Chromium. The pictures go to web/docs/images; a page without its picture gets one under its heading.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from .browser import NoBrowser, open_canvas
from .comfy_server import ComfyServer
from .locate import comfyuis

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "web" / "docs"
COLOURS = 48  # enough for a node, and a tenth of the bytes


def add_to_page(page: Path, title: str) -> None:
    """Show the picture under the page's heading, if it is not shown yet."""
    text, picture = page.read_text(encoding="utf-8"), f"](images/{page.stem}.png)"
    if picture not in text:
        heading, rest = text.split("\n", 1)
        page.write_text(f"{heading}\n\n![{title}{picture}\n{rest}", encoding="utf-8", newline="\n")


def main(names: list[str]) -> None:
    images = PAGES / "images"
    images.mkdir(exist_ok=True)
    with ComfyServer(comfyuis()[0], [ROOT]) as server, open_canvas(server.url, height=1500) as canvas:
        for page in [PAGES / f"{name}.md" for name in names] or sorted(PAGES.glob("*.md")):
            path = images / f"{page.stem}.png"
            canvas.shoot_node(page.stem, path)
            with Image.open(path) as picture:
                picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
            add_to_page(page, page.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# "))
            print(f"{path.relative_to(ROOT)}  {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except NoBrowser as missing:
        sys.exit(f"No pictures: {missing}")
