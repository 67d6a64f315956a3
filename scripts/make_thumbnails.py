"""Makes the thumbnails of the workflows that scripts/make_workflows.py writes.

    python -m scripts.make_thumbnails              diagrams of those that need a checkpoint: what goes where
    python -m scripts.make_thumbnails registry     the registry's icon and banner
    python -m scripts.make_thumbnails own-output   runs the others and shows what they made (or those that are named)
    python -m scripts.make_thumbnails quickstart   from the videos that run.py demo wrote to output/demo

An AnimateDiff workflow cannot show its own output on a machine without the checkpoint; a diagram promises nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps
from torchvision.transforms.functional import to_pil_image

from motionprompt_tools import world
from motionprompt_tools.writing import write_video

from .comfy_server import ComfyServer
from .locate import comfyuis
from .workflow import find_nodes, load_workflow, ui_to_api

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = ROOT / "workflows"
IMAGES = ROOT / "docs" / "images"
SIZE = (768, 432)
SCALE = 2  # drawn larger and shrunk, for smooth edges
BACK, INK, LINE, GREEN, BLUE, PINK = "#1f2228", "#f0f0f0", "#8a93a3", "#2f6b3f", "#2f5c85", "#7a3b78"
FRAME, AMBER = "#3a3f4a", "#b58b2a"


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow."""
    return ImageFont.load_default(size * SCALE)


class Drawing:
    """A picture in units of the finished thumbnail."""

    def __init__(self, size: tuple[int, int] = SIZE) -> None:
        self.size = size
        self.image = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), BACK)
        self.draw = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, text: str, size: int = 20, colour: str = INK, anchor: str = "mm") -> None:
        self.draw.text((x * SCALE, y * SCALE), text, colour, font(size), anchor)

    def box(self, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
        """A node with a text of one or two lines."""
        bounds = [x * SCALE, y * SCALE, (x + width) * SCALE, (y + height) * SCALE]
        self.draw.rounded_rectangle(bounds, 10 * SCALE, colour, LINE, SCALE)
        lines = text.split("\n")
        for number, line in enumerate(lines):
            self.text(x + width / 2, y + height / 2 + (number - (len(lines) - 1) / 2) * 24, line)

    def arrow(self, x: float, y: float, x2: float, y2: float) -> None:
        self.draw.line([x * SCALE, y * SCALE, x2 * SCALE, y2 * SCALE], LINE, 3 * SCALE)
        head = [(x2, y2), (x2 - 10, y2 - 6), (x2 - 10, y2 + 6)]
        self.draw.polygon([(a * SCALE, b * SCALE) for a, b in head], LINE)

    def frames(self, x: float, y: float, number: int, width: float, gap: float, colours: Sequence[str]) -> None:
        """A row of video frames."""
        for index in range(number):
            left = (x + index * (width + gap)) * SCALE
            bounds = [left, y * SCALE, left + width * SCALE, (y + width) * SCALE]
            self.draw.rectangle(bounds, colours[index % len(colours)], LINE, SCALE)

    def save(self, path: Path) -> None:
        self.image.resize(self.size, Image.Resampling.LANCZOS).save(path, quality=90)
        print(path.relative_to(ROOT))


def pipeline(title: str, subtitle: str, model: str = "SD 1.5\n+ AnimateDiff") -> Drawing:
    """What all text-to-video workflows have in common: prompt and model into MotionPrompt, out comes a video."""
    drawing = Drawing()
    drawing.text(SIZE[0] / 2, 42, title, 34)
    drawing.text(SIZE[0] / 2, 80, subtitle, 19, "#b9c2d0")
    drawing.box(30, 120, 170, 64, "prompt\n+ learnable token", GREEN)
    drawing.box(30, 208, 170, 64, model, BLUE)
    drawing.box(290, 150, 190, 92, "MotionPrompt\nKSampler", GREEN)
    drawing.box(580, 164, 160, 64, "video", FRAME)
    drawing.arrow(200, 152, 290, 180)
    drawing.arrow(200, 240, 290, 212)
    drawing.arrow(480, 196, 580, 196)
    return drawing


def steps(drawing: Drawing, number: int, guided: Sequence[int], y: float, caption: str) -> None:
    """The schedule as a row of cells, the guided ones lit."""
    width = min(40.0, 620 / number - 4)
    left = (SIZE[0] - number * (width + 4)) / 2
    for index in range(number):
        drawing.frames(left + index * (width + 4), y, 1, width, 0, [AMBER if index in guided else FRAME])
    drawing.text(SIZE[0] / 2, y + width + 20, caption, 18, "#b9c2d0")


def compare_settings(server: ComfyServer, every: int = 5) -> Image.Image:
    """Frames of the video that the workflow saves, with the video's title."""
    prompt = ui_to_api(load_workflow(WORKFLOWS / "compare_settings.json"), server.object_info())
    saved = find_nodes(prompt, "SaveAnimatedWEBP")[0]
    pictures = frames_of(server.queue(prompt, timeout=3600).files(saved)[0], every)
    width, height = pictures[0].size
    sheet = Image.new("RGB", (3 * width + 80, height + 60), "white")
    ImageDraw.Draw(sheet).text((sheet.width / 2, 30), prompt[saved]["_meta"]["title"], "black", font(13), "mm")
    for number, picture in enumerate(pictures[:3]):
        sheet.paste(picture, (number * (width + 40), 60))
    return sheet


def measure_video(server: ComfyServer, seed: int = 40_010) -> Image.Image:
    """Six frames of a rendered clip, as the user's video, and the plot that the workflow makes of it."""
    prompt = ui_to_api(load_workflow(WORKFLOWS / "measure_video.json"), server.object_info())
    clip = world.render(world.random_clip(torch.Generator().manual_seed(seed), fault_share=0))[0]
    loader = prompt[find_nodes(prompt, "LoadVideo")[0]]
    write_video(clip, server.base_dir / "input" / loader["inputs"]["file"])
    (metrics,) = find_nodes(prompt, "MotionPromptTemporalMetrics")
    with Image.open(server.queue(prompt, timeout=3600).files(metrics)[0]) as picture:
        plot = picture.convert("RGB")
    inked = ImageOps.invert(plot).getbbox() or (0, 0, *plot.size)
    sheet = Image.new("RGB", (plot.width, plot.width // 6 + inked[3] + 12), "white")
    sheet.paste(plot, (0, plot.width // 6))
    size = sheet.width // 6
    for number in range(6):
        frame = to_pil_image(clip[round(number * (len(clip) - 1) / 5)])
        sheet.paste(frame.resize((size - 6, size - 6), Image.Resampling.NEAREST), (number * size + 3, 3))
    return sheet


OWN_OUTPUT = {"compare_settings": compare_settings, "measure_video": measure_video}


def frames_of(path: Path, every: int) -> list[Image.Image]:
    """Every n-th frame of an animated picture."""
    with Image.open(path) as video:
        pictures = []
        for index in range(0, getattr(video, "n_frames", 1), every):
            video.seek(index)
            pictures.append(video.convert("RGB"))
    return pictures


def own_output(names: Sequence[str]) -> None:
    """Run workflows as they are, and show what they made."""
    with ComfyServer(comfyuis()[-1], [ROOT], start_timeout=1200) as server:
        for name in names or OWN_OUTPUT:
            OWN_OUTPUT[name](server).save(WORKFLOWS / f"{name}.jpg", quality=88)
            print((WORKFLOWS / f"{name}.jpg").relative_to(ROOT))


def quickstart(folder: Path = ROOT / "output" / "demo", moment: float = 0.6) -> None:
    """A moment of the comparison that the workflow makes."""
    with Image.open(folder / "compare.webp") as video:
        video.seek(round(moment * (getattr(video, "n_frames", 1) - 1)))
        video.convert("RGB").save(WORKFLOWS / "quickstart.jpg", quality=88)


def arrows(drawing: Drawing, x: float, y: float, size: float) -> None:
    """The sign of the pack: a field of motion that comes into line."""
    for row in range(4):
        for column in range(4):
            angle = (3 - column) * (0.55 if (row + column) % 2 else -0.4)
            left, top = x + (column + 0.5) * size / 4, y + (row + 0.5) * size / 4
            reach = size / 10
            dx, dy = reach * math.cos(angle), reach * math.sin(angle)
            colour = ImageColor.getrgb(("#8a93a3", "#a89e88", "#c4a76c", AMBER)[column])
            ends = [(left - dx) * SCALE, (top - dy) * SCALE, (left + dx) * SCALE, (top + dy) * SCALE]
            drawing.draw.line(ends, colour, round(size / 40 * SCALE))
            head = []
            for turn in (0.0, 2.5, -2.5):
                head.append(
                    (
                        (left + dx + reach * 0.5 * math.cos(angle + turn)) * SCALE,
                        (top + dy + reach * 0.5 * math.sin(angle + turn)) * SCALE,
                    )
                )
            drawing.draw.polygon(head, colour)


def registry() -> None:
    """Icon (square, at most 400 px) and banner (21:9) for the Comfy registry."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    icon = Drawing((400, 400))
    arrows(icon, 20, 20, 360)
    icon.save(IMAGES / "icon.png")
    banner = Drawing((1260, 540))
    arrows(banner, 60, 90, 360)
    banner.text(480, 215, "MotionPrompt", 84, anchor="lm")
    banner.text(484, 300, "prompt tokens that learn while", 34, "#b9c2d0", anchor="lm")
    banner.text(484, 346, "a video is sampled, for real motion", 34, "#b9c2d0", anchor="lm")
    banner.save(IMAGES / "banner.png")


def main() -> None:
    """All diagrams."""
    drawing = pipeline("AnimateDiff + MotionPrompt", "text to video, 16 frames; one token learns while it is sampled")
    steps(drawing, 25, range(2, 8), 310, "25 steps, guided where motion is decided")
    drawing.save(WORKFLOWS / "animatediff_motionprompt.jpg")

    drawing = pipeline("A long video", "48 frames through a window of 16 that slides along")
    drawing.frames(92, 300, 48, 8, 4, [FRAME])
    for number in range(4):
        left = 92 + number * 128
        bounds = [left, 318 + 22 * (number % 2), left + 188, 330 + 22 * (number % 2)]
        drawing.draw.rounded_rectangle([value * SCALE for value in bounds], 5 * SCALE, AMBER)
    drawing.text(SIZE[0] / 2, 388, "windows overlap by 4; neighbouring frames are compared", 18, "#b9c2d0")
    drawing.save(WORKFLOWS / "animatediff_long_video.jpg")

    drawing = pipeline("AnimateDiff + ControlNet", "the outlines of your own video, repainted")
    drawing.box(30, 300, 170, 64, "your video", PINK)
    drawing.box(240, 300, 130, 64, "outlines", PINK)
    drawing.box(410, 300, 190, 64, "Apply ControlNet\non the prompt", PINK)
    drawing.arrow(200, 332, 240, 332)
    drawing.arrow(370, 332, 410, 332)
    drawing.draw.line([430 * SCALE, 300 * SCALE, 400 * SCALE, 243 * SCALE], LINE, 3 * SCALE)
    drawing.save(WORKFLOWS / "animatediff_controlnet.jpg")

    drawing = pipeline("FreeInit + MotionPrompt", "sampled twice; the second pass begins from a steadier noise")
    steps(drawing, 25, range(2, 8), 290, "")
    steps(drawing, 25, range(2, 8), 325, "each pass is guided afresh")
    drawing.save(WORKFLOWS / "animatediff_freeinit.jpg")

    drawing = pipeline("AnimateDiff-Lightning", "eight steps instead of 25, without a negative prompt")
    steps(drawing, 8, (1, 2), 310, "the window is a share of the steps: it scales with them")
    drawing.save(WORKFLOWS / "animatediff_lightning.jpg")

    drawing = Drawing()
    drawing.text(SIZE[0] / 2, 42, "Steady Motion", 34)
    drawing.text(SIZE[0] / 2, 80, "one node between any video model and its sampler", 19, "#b9c2d0")
    for left, width, text, colour in (
        (30, 150, "any video\nmodel", BLUE),
        (230, 170, "Steady\nMotion", GREEN),
        (450, 130, "sampler", FRAME),
        (630, 110, "video", FRAME),
    ):
        drawing.box(left, 150, width, 80, text, colour)
    for left, right in ((180, 230), (400, 450), (580, 630)):
        drawing.arrow(left, 190, right, 190)
    beside(drawing)
    drawing.save(WORKFLOWS / "steady_motion.jpg")
    native()


def native() -> None:
    """The models that the pack loads itself: plain and guided videos beside each other."""
    for name, title, subtitle, model in (
        ("lavie", "LaVie", "text to video, 16 frames of 512 x 320", "LaVie\n+ SD 1.x encoders"),
        ("videocrafter2", "VideoCrafter2", "text to video with a frame rate, 16 frames of 512 x 320", "VideoCrafter2"),
    ):
        drawing = pipeline(f"{title} + MotionPrompt", subtitle, model)
        beside(drawing)
        drawing.save(WORKFLOWS / f"{name}_motionprompt.jpg")
    for name, title, subtitle, images in (
        ("motionprompt", "DynamiCrafter + MotionPrompt", "an image in motion, 16 frames of 1024 x 576", ["your image"]),
        (
            "between_images",
            "Between two images",
            "DynamiCrafter + MotionPrompt; twice the same makes a loop",
            ["first", "last"],
        ),
    ):
        drawing = pipeline(title, subtitle, "DynamiCrafter")
        for number, image in enumerate(images):
            drawing.box(30 + 90 * number, 300, 170 / len(images) - 5, 64, image, PINK)
        drawing.arrow(200, 332, 290, 242)
        beside(drawing)
        drawing.save(WORKFLOWS / f"dynamicrafter_{name}.jpg")


def beside(drawing: Drawing) -> None:
    """Two rows of frames: out of step, and in line."""
    for left, colours, caption in ((310, [FRAME, LINE, PINK, FRAME], "plain"), (550, [AMBER], "guided")):
        drawing.frames(left, 316, 5, 34, 5, colours)
        drawing.text(left + 95, 380, caption, 18, "#b9c2d0")


if __name__ == "__main__":
    if sys.argv[1:] == ["registry"]:
        registry()
    elif sys.argv[1:2] == ["own-output"]:
        own_output(sys.argv[2:])
    elif sys.argv[1:] == ["quickstart"]:
        quickstart()
    else:
        main()
