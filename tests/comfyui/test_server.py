"""The live server itself: starts, runs prompts, tells errors, stops; and the in-process one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.comfy_server import ComfyError, ComfyExecutionError, ComfyInterrupted, ComfyServer, find_animatediff
from scripts.locate import animatediff
from tests.comfyui.inprocess import InProcessComfy

PACK = """
import time
from comfy_api.latest import ComfyExtension, io

class Wait(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestWait", inputs=[io.Float.Input("seconds", default=0.0), io.Image.Input("image")],
                         outputs=[io.Image.Output()])
    @classmethod
    def execute(cls, seconds, image):
        import comfy.model_management
        if seconds < 0:
            raise ValueError("cannot wait a negative time")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.02)
        return io.NodeOutput(image)

class Extension(ComfyExtension):
    async def get_node_list(self):
        return [Wait]

async def comfy_entrypoint():
    return Extension()
"""


@pytest.fixture
def small_pack(tmp_path: Path) -> Path:
    pack = tmp_path / "small_pack"
    pack.mkdir()
    (pack / "__init__.py").write_text(PACK, encoding="utf-8")
    return pack


def prompt(seconds: float) -> dict:
    image = {"width": 16, "height": 8, "batch_size": 2, "color": 0xFF0000}
    return {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": "TestWait", "inputs": {"seconds": seconds, "image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "sub/picture"}},
    }


def test_runs_fails_and_interrupts(make_server: Callable[..., ComfyServer], small_pack: Path) -> None:
    server = make_server(packs=[small_pack])
    with server.watch() as log:
        result = server.queue(prompt(0.0))
    files = result.files(3)
    assert [path.parent for path in files] == [server.base_dir / "output" / "sub"] * 2
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)
    assert {"2", "3"} <= {data.get("node") for data in log.of("executing")}

    with pytest.raises(ComfyExecutionError) as caught:
        server.queue(prompt(-1.0))
    assert (caught.value.node_id, caught.value.node_type) == ("2", "TestWait")
    assert "cannot wait a negative time" in str(caught.value)

    with pytest.raises(ComfyError, match="TestWait.*[Rr]equired input is missing: image"):
        broken = prompt(0.0)
        del broken["2"]["inputs"]["image"]
        server.queue(broken)

    prompt_id = server.submit(prompt(60.0))
    threading.Timer(1.0, server.interrupt).start()
    with pytest.raises(ComfyInterrupted, match="TestWait"):
        server.wait(prompt_id, timeout=30)

    uploaded = server.upload(files[0])
    load = {"1": {"class_type": "LoadImage", "inputs": {"image": uploaded}}}
    load["2"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    assert len(server.queue(load).files(2)) == 1

    base_dir, pid = server.base_dir, server.pid
    assert server.peak_memory() > 2**28
    server.stop()
    assert not base_dir.exists()
    assert (small_pack / "__init__.py").exists(), "stopping must not follow links into the pack"
    assert pid > 0


def test_says_why_it_did_not_start(comfyui_path: Path) -> None:
    with pytest.raises(ComfyError, match="unrecognized arguments: --no-such-flag"):
        ComfyServer(comfyui_path, args=["--no-such-flag"]).start()


def test_refuses_a_folder_without_comfyui(tmp_path: Path) -> None:
    with pytest.raises(ComfyError, match=r"not a ComfyUI folder: it has no main\.py"):
        ComfyServer(tmp_path)


@pytest.mark.ade
def test_animatediff_loads_beside_a_pack(make_server: Callable[..., ComfyServer], small_pack: Path) -> None:
    ade = animatediff()
    assert ade is not None
    info = make_server(packs=[small_pack, ade]).object_info()
    assert {"TestWait", "ADE_UseEvolvedSampling", "ADE_AnimateDiffLoaderGen1"} <= set(info)


def test_finds_animatediff_by_its_folder(tmp_path: Path) -> None:
    assert find_animatediff(tmp_path) is None
    (tmp_path / "custom_nodes" / "comfyui-animatediff-evolved" / "animatediff").mkdir(parents=True)
    assert find_animatediff(tmp_path) == tmp_path / "custom_nodes" / "comfyui-animatediff-evolved"


def test_in_process_runs_nodes_with_defaults(bare_comfy: InProcessComfy, small_pack: Path) -> None:
    bare_comfy.load_pack(small_pack)
    (image,) = bare_comfy.run("EmptyImage", width=16, height=8)
    (same,) = bare_comfy.run("TestWait", image=image)
    assert tuple(same.shape) == (1, 8, 16, 3)
    with pytest.raises(ValueError, match="negative time"):
        bare_comfy.run("TestWait", image=image, seconds=-1.0)
