"""Which ComfyUIs are found, in which order, and what one lacks to start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import locate
from scripts.comfy_server import ComfyError, comfyui_version


def make_comfyui(folder: Path, version: str, requirements: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    (folder / "requirements.txt").write_text(requirements)
    return folder.resolve()


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer with the bundled ComfyUI alone."""
    monkeypatch.setattr(locate, "bundled_comfyui", lambda: tmp_path / "bundled")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    return make_comfyui(tmp_path / "bundled", "0.3.75")


def test_on_a_new_computer_there_is_the_bundled_one(bundled: Path) -> None:
    assert locate.comfyuis() == locate.oldest_and_newest(locate.comfyuis()) == [bundled]
    assert locate.what_is_covered() == [
        "ComfyUI: 0.3.75",
        "absent, so not tested: ComfyUI 0.8.0, 0.12.1, 0.18.1, 0.33.0 (name their folders in COMFYUI_PATH)",
        "AnimateDiff-Evolved: absent",
    ]


def test_every_folder_in_comfy_is_found_the_oldest_version_first(bundled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "comfy"
    paths = {version: make_comfyui(folder / f"ComfyUI-{version}", version) for version in ("0.33.0", "0.12.1")}
    paths["0.8.0"] = make_comfyui(folder / "ComfyUI", "0.8.0")
    make_comfyui(folder / "another program", "1.0.0")
    (folder / "ComfyUI-empty").mkdir()
    assert locate.comfyuis() == [bundled, paths["0.8.0"], paths["0.12.1"], paths["0.33.0"]]
    assert locate.oldest_and_newest(locate.comfyuis()) == [bundled, paths["0.33.0"]]


def test_comfyui_path_names_several_and_one_version_is_tested_once(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_comfyui(tmp_path / "home" / "comfy" / "ComfyUI", "0.8.0")
    paths = [make_comfyui(tmp_path / name, version) for name, version in (("a", "0.33.0"), ("b", "0.3.75"))]
    monkeypatch.setenv("COMFYUI_PATH", os.pathsep.join(map(str, [*paths, tmp_path / "nothing"])))
    assert locate.comfyuis() == paths[::-1], "the user's 0.3.75 in the place of the bundled one"
    assert locate.users_comfyuis() == paths


def test_animatediff_is_taken_from_the_comfyui_itself_if_it_has_it(bundled: Path, tmp_path: Path) -> None:
    first, second = (make_comfyui(tmp_path / "home" / "comfy" / f"ComfyUI-{v}", v) for v in ("0.8.0", "0.33.0"))
    for path in (first, second):
        (path / "custom_nodes" / "ComfyUI-AnimateDiff-Evolved" / "animatediff").mkdir(parents=True)
    assert locate.animatediff(bundled) == first / "custom_nodes" / "ComfyUI-AnimateDiff-Evolved"
    assert locate.animatediff(second) == second / "custom_nodes" / "ComfyUI-AnimateDiff-Evolved"


def test_the_demo_says_which_packages_a_comfyui_lacks(repo_root: Path, tmp_path: Path) -> None:
    requirements = "pytest\nno-such_package==1.0\ncomfyui-embedded-docs==0.5\n#non essential dependencies:\nnor-this\n"
    path = make_comfyui(tmp_path / "comfy", "0.99.0", requirements)
    assert locate.missing_packages(path) == ["no-such_package==1.0"]
    command = [sys.executable, "-m", "scripts.demo", "--comfyui", "comfy", "--relative-to", str(tmp_path)]
    found = subprocess.run(command, cwd=repo_root, capture_output=True, text=True)
    assert found.returncode == 1
    assert f"ComfyUI 0.99.0 in {path} asks for packages" in found.stderr
    assert f'{sys.executable} -m pip install "no-such_package==1.0"' in found.stderr


def test_a_folder_without_comfyui_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ComfyError, match="not a ComfyUI folder"):
        locate.missing_packages(tmp_path)


def test_what_the_tests_install_is_enough_for_every_comfyui_found() -> None:
    """The start-up packages of newer ComfyUIs come with the tests' packages (requirements-dev.txt)."""
    lacking = {comfyui_version(path): locate.missing_packages(path) for path in locate.comfyuis()}
    assert not any(lacking.values()), lacking
