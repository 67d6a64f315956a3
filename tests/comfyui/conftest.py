"""Fixtures with a real ComfyUI: `comfy_server` is a live process per version, `comfy` is imported into pytest.

`comfy_server` and `make_server` run tests with the oldest and the newest ComfyUI found (scripts/locate.py), and with
those between, too, where the test has the mark `every_version`. Packs in tests/comfyui/packs/ are loaded beside this
one: nodes that only tests need, such as a tiny model. Mark a test with `@pytest.mark.ade` (or take `ade_path`) when it
needs AnimateDiff-Evolved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from scripts.comfy_server import ComfyServer, comfyui_version
from scripts.locate import animatediff, comfyuis, oldest_and_newest
from tests.comfyui.inprocess import InProcessComfy, chosen_comfyui

PROBES = Path(__file__).parent / "packs"
MISSING = "no ComfyUI found (run the tests through run.py, or set COMFYUI_PATH)"


def probe_packs() -> list[Path]:
    """Node packs that exist for the tests only."""
    return sorted(path.parent for path in PROBES.glob("*/__init__.py"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Which versions a test that starts servers runs with."""
    if "comfyui_path" in metafunc.fixturenames:
        every = any(mark.name == "every_version" for mark in metafunc.definition.iter_markers())
        paths = comfyuis() if every else oldest_and_newest(comfyuis())
        if "bare_comfy" in metafunc.fixturenames:  # it imports ComfyUI, too: the same one
            paths = [path for path in [chosen_comfyui()] if path is not None]
        ids = [comfyui_version(path) for path in paths] or ["none"]
        metafunc.parametrize("comfyui_path", paths or [None], ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session")
def comfyui_path(request: pytest.FixtureRequest) -> Path:
    """One ComfyUI folder; tests run once for each version."""
    return request.param or pytest.skip(MISSING)


@pytest.fixture(scope="session")
def ade_path() -> Path:
    """Folder of AnimateDiff-Evolved; skips the test when it is nowhere."""
    return animatediff() or pytest.skip("AnimateDiff-Evolved is absent (set COMFYUI_PATH to a ComfyUI that has it)")


@pytest.fixture(scope="session")
def requires_ade(ade_path: Path) -> Path:
    """The same under a name that reads well in `usefixtures`."""
    return ade_path


@pytest.fixture(scope="session")
def comfy_server(comfyui_path: Path, repo_root: Path) -> Iterator[ComfyServer]:
    """A live server with this pack, the tests' probe packs and, where it exists, AnimateDiff-Evolved.

    Shared by the whole session: leave it as it was found (files in input/ and models/ under names of your own).
    """
    ade = animatediff(comfyui_path)
    packs = [repo_root, *probe_packs(), *([ade] if ade else [])]
    with ComfyServer(comfyui_path, packs) as server:
        yield server


@pytest.fixture
def make_server(comfyui_path: Path) -> Iterator[Callable[..., ComfyServer]]:
    """Starts servers with packs or flags of one's own, stopped after the test: make_server(packs=[...], args=[...])."""
    with ExitStack() as stack:

        def start(**options: Any) -> ComfyServer:
            return stack.enter_context(ComfyServer(comfyui_path, **options))

        yield start


@pytest.fixture(scope="session")
def bare_comfy(tmp_path_factory: pytest.TempPathFactory) -> InProcessComfy:
    """ComfyUI imported into this process on the CPU, without any pack.

    One process holds one ComfyUI: the newest that is found, or the one in MOTIONPROMPT_INPROCESS.
    """
    path = chosen_comfyui() or pytest.skip(MISSING)
    return InProcessComfy.get(path, tmp_path_factory.mktemp("comfyui"))


@pytest.fixture(scope="session")
def comfy(bare_comfy: InProcessComfy, repo_root: Path) -> InProcessComfy:
    """ComfyUI in this process with this pack and the tests' probe packs loaded; see inprocess.py."""
    bare_comfy.pack_module = bare_comfy.load_pack(repo_root)
    for pack in probe_packs():
        bare_comfy.load_pack(pack)
    return bare_comfy


@pytest.fixture(scope="session")
def comfy_ade(comfy: InProcessComfy, ade_path: Path) -> InProcessComfy:
    """`comfy` with AnimateDiff-Evolved loaded as well; skips the test when it is absent."""
    comfy.load_pack(animatediff(comfy.path) or ade_path)
    return comfy


@pytest.fixture(scope="session")
def tiny(comfy: InProcessComfy) -> Any:
    """Tiny random models of the SD1.5 kind in this process; see tiny.py."""
    from tests.comfyui.tiny import Tiny

    return Tiny(comfy)


@pytest.fixture(scope="session")
def tiny_ade(comfy_ade: InProcessComfy, tiny: Any) -> Any:
    """`tiny` with AnimateDiff-Evolved loaded."""
    return tiny
