"""Nothing is written outside of ComfyUI's folders, whatever names are given."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from motionprompt_tools.writing import write_video
from scripts.comfy_server import ComfyError, ComfyServer
from tests.comfyui.conftest import probe_packs
from tests.core.test_clips import drifting

pytestmark = pytest.mark.exhaustive  # half a minute for each version; names alone: test_training.py

# What Python opens to write, makes, moves or links, from the moment this pack is loaded.
WATCH = """
import os, sys
SEEN = set()

def watch(event, given):
    if event == "open" and isinstance(given[0], (str, bytes)):
        mode, flags = given[1] or "", given[2] or 0
        if set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            SEEN.add(os.path.abspath(os.fsdecode(given[0])))
    elif event == "os.mkdir":
        SEEN.add(os.path.abspath(os.fsdecode(given[0])))
    elif event in ("os.rename", "os.link", "os.symlink"):
        SEEN.add(os.path.abspath(os.fsdecode(given[1])))

sys.addaudithook(watch)

class ShowWrites:
    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "tests", "show", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    @classmethod
    def IS_CHANGED(cls):
        return float("nan")

    def show(self):
        import json
        return {"ui": {"text": [json.dumps(sorted(SEEN))]}}

NODE_CLASS_MAPPINGS = {"ShowWrites": ShowWrites}
"""
OUTSIDE = (
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "TORCH_HOME",
    "HF_HOME",
    "MPLCONFIGDIR",
)
PLACES = (
    *("output/motionprompt/captured/mine/", "output/motionprompt/flow_cache/", "output/motionprompt/training/"),
    *("models/motionprompt/mine", "output/mine_", "temp/", "user/"),
)
HOSTILE = (
    *(
        "../../../../outside",
        "/outside",
        "..",
        "a/../../outside",
        "C:\\outside",
        "\\\\host\\share",
        "%date:yyyy%/x",
        "~/x",
    ),
    *("a\nb", "NUL", "file:///outside", "x" * 300),
)


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outside")


@pytest.fixture(scope="module")
def server(comfyui_path: Path, repo_root: Path, outside: Path, tmp_path_factory: Any) -> Iterator[ComfyServer]:
    pack, env = tmp_path_factory.mktemp("packs") / "a_watch", {"PYTHONDONTWRITEBYTECODE": "1"}
    pack.mkdir()
    (pack / "__init__.py").write_text(WATCH, encoding="utf-8")
    for name in OUTSIDE:
        (outside / name).mkdir(exist_ok=True)
        env[name] = str(outside / name)
    base = tmp_path_factory.mktemp("comfyui")
    for seed in range(2):
        write_video(drifting(6, 1.0, seed=seed, size=48), base / "input" / "real" / f"{seed}.webp")
    with ComfyServer(comfyui_path, [pack, repo_root, *probe_packs()], base_dir=base, env=env) as running:
        yield running


def graph(capture: str = "mine", file: str = "mine", family: str = "any", folder: str = "real") -> dict[str, Any]:
    """A render with everything of the pack that writes or shows something."""
    basic = {"seed": 1, "steps": 2, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    basic |= {"positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0]}
    guidance = {"vae": ["models", 2], "flow_model": ["flow", 0], "preset": "paper", "guide": "estimate", "stop": 1.0}
    small = {"size": 32, "pairs": 2, "gaps": "1", "max_frames": 6, "fps": 8.0, "folder_fps": 8.0}
    nodes: dict[str, Any] = {
        "models": ("TinyFamilyModel", {"family": "frames"}),
        "flow": ("GradientFlow", {}),
        "latent": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 4}),
        "positive": ("MotionPromptConditioning", {"clip": ["models", 1], "text": "a ball", "token_count": 1,
                                                  "init_words": "smooth", "placement": "end"}),
        "negative": ("CLIPTextEncode", {"clip": ["models", 1], "text": ""}),
        "capture": ("MotionPromptCaptureFlow", {"model": ["models", 0], "vae": ["models", 2], "flow_model": ["flow", 0],
                                                "name": capture, "start": 0.0, "stop": 1.0, "pairs": 2, "max_gap": 1}),
        "sampler": ("MotionPromptKSampler", {"model": ["capture", 0], **basic, **guidance}),
        "report": ("MotionPromptReport", {"report": ["sampler", 1], "latent": ["sampler", 0]}),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["models", 2]}),
        "metrics": ("MotionPromptTemporalMetrics", {"images": ["decode", 0], "flow_model": ["flow", 0], "fps": 8.0}),
        "noise": ("VAEDecode", {"samples": ["latent_noise", 0], "vae": ["models", 2]}),
        "seeds": ("MotionPromptClipSeeds", {"prompts": "a ball", "count": 2, "seed": 2}),
        "latent_noise": ("KSampler", {"model": ["models", 0], **basic, "seed": ["seeds", 1]}),
        "both": ("MotionPromptBeforeAfter", {"before": ["decode", 0], "after": ["decode", 0]}),
        "save": ("SaveAnimatedWEBP", {"images": ["both", 0], "filename_prefix": "mine", "fps": 8.0, "lossless": False,
                                      "quality": 80, "method": "fastest"}),
        "data": ("MotionPromptFlowDataset", {"flow_model": ["flow", 0], "real": folder, "generated": "",
                                             "generated_images": ["noise", 0], **small}),
        "train": ("MotionPromptTrainFlowDiscriminator", {"dataset": ["data", 0], "size": "small", "epochs": 1,
                                                         "learning_rate": 1e-3, "seed": 0, "family": family}),
        "keep": ("MotionPromptSaveFlowDiscriminator", {"discriminator": ["train", 0], "filename": file,
                                                       "trained_on": "../x"}),
    }  # fmt: skip
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def up_to(prompt: dict[str, Any], *names: str) -> dict[str, Any]:
    """These nodes and what they depend on, each with its result shown, so that ComfyUI runs it."""
    needed = list(names)
    for name in needed:
        links = (value[0] for value in prompt[name]["inputs"].values() if isinstance(value, list))
        needed += [link for link in links if link not in needed]
    return {name: prompt[name] for name in needed}


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_render_with_everything_writes_where_its_nodes_say(server: ComfyServer, outside: Path) -> None:
    before = {str(path) for path in server.base_dir.rglob("*")}
    server.queue(graph())
    written = sorted(
        str(path.relative_to(server.base_dir)) for path in server.base_dir.rglob("*")
        if path.is_file() and str(path) not in before
    )  # fmt: skip
    for folder in OUTSIDE:
        assert files_below(outside / folder) == [], folder
    assert [path for path in written if not path.startswith(PLACES)] == []
    for place in PLACES[:2] + PLACES[3:]:  # a training's state is removed when it has ended
        assert any(path.startswith(place) for path in written), place
    roots = tuple(str(server.base_dir / part) + os.sep for part in ("output", "temp", "user", "models"))
    looked = server.queue({"writes": {"class_type": "ShowWrites", "inputs": {}}}).text("writes")
    opened = [path for path in json.loads(looked) if path != os.devnull]
    assert any("flow_cache" in path for path in opened)
    assert [path for path in opened if not f"{path}{os.sep}".startswith(roots)] == []


def test_no_name_leads_outside(server: ComfyServer, outside: Path) -> None:
    around = files_below(server.base_dir.parent)
    for name in HOSTILE:
        prompts = [up_to(graph(capture=name), "report"), up_to(graph(file=name), "keep")]
        prompts += [up_to(graph(family=name), "train"), up_to(graph(folder=name), "train")]
        for prompt in prompts:  # of those before, ComfyUI has kept what does not depend on the name
            with pytest.raises(ComfyError, match=r"no name for a file|outside of ComfyUI's|there is no folder"):
                server.queue(prompt)
    found = [path for path in files_below(server.base_dir.parent) if path not in around]
    base = server.base_dir.name
    assert [path for path in found if not path.startswith(tuple(f"{base}/{place}" for place in PLACES))] == []
    for folder in OUTSIDE:
        assert files_below(outside / folder) == [], folder
