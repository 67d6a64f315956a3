"""run.py: its commands, the environment it makes, and what it says when something is wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def run(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """run.py as a module, for an environment of its own and one group: a requirement file in a temporary folder."""
    monkeypatch.setenv("MOTIONPROMPT_VENV", str(tmp_path / "venv"))
    spec = importlib.util.spec_from_file_location("run_under_test", repo_root / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "requirements.txt").write_text("# nothing yet\n")
    module.ROOT, module.GROUPS = tmp_path, {"dev": [("requirements.txt", ["--no-deps"])]}
    return module


def start(repo_root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "run.py", *arguments], cwd=repo_root, capture_output=True, text=True)


def test_without_a_command_it_explains_itself(repo_root: Path) -> None:
    result = start(repo_root)
    assert result.returncode == 2
    assert all(f"run.py {name}" in result.stdout for name in ("demo", "test", "check", "comfy"))
    assert start(repo_root, "--help").returncode == 0


def test_unknown_command(repo_root: Path) -> None:
    result = start(repo_root, "tests")
    assert result.returncode == 2
    assert "no command 'tests'" in result.stderr and "demo, test, check, comfy" in result.stderr


@pytest.mark.parametrize("version", [(3, 9), (3, 14), (2, 7)])
def test_wrong_python_is_named(run: ModuleType, version: tuple[int, int]) -> None:
    with pytest.raises(run.Failure, match=rf"this is Python {version[0]}\.{version[1]}, but Python 3\.10 to 3\.13"):
        run.check_python(version)


@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 12), (3, 13)])
def test_right_python_is_taken(run: ModuleType, version: tuple[int, int]) -> None:
    run.check_python(version)


def test_needs_only_the_standard_library(repo_root: Path) -> None:
    code = "import sys; sys.argv = ['run.py', '--help']; import runpy; runpy.run_path('run.py')"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=repo_root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_demo_takes_a_comfyui_relative_to_where_it_was_called(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    monkeypatch.setattr(run, "ensure", lambda *groups: None)
    monkeypatch.setattr(run, "call", lambda *arguments: called.extend(map(str, arguments)) or 0)
    monkeypatch.chdir(tmp_path)
    assert run.main(["demo", "--comfyui", "my ComfyUI"]) == 0
    assert called == ["-m", "scripts.demo", "--relative-to", str(tmp_path), "--comfyui", "my ComfyUI"]


def test_installs_once_and_again_when_something_changed(run: ModuleType, tmp_path: Path) -> None:
    venv, requirements = tmp_path / "venv", tmp_path / "requirements.txt"
    run.ensure("dev")
    assert run.works()
    log, stamp = venv / "install-dev.log", venv / "installed-dev"

    log.write_text("untouched")
    run.ensure("dev")
    assert log.read_text() == "untouched", "nothing changed, so nothing is installed"

    requirements.write_text("# something else\n")
    run.ensure("dev")
    assert log.read_text() != "untouched"

    requirements.write_text("./no-such-package\n")  # fails without a network
    with pytest.raises(run.Failure, match=r"pip could not install requirements\.txt(.|\n)*The whole log"):
        run.ensure("dev")
    assert not stamp.exists(), "a failed installation must be repeated the next time"

    requirements.write_text("# mended\n")
    run.ensure("dev")
    assert stamp.exists()

    (venv / "motionprompt.json").write_text(json.dumps({"python": [3, 0]}))
    old = venv / "left-over"
    old.touch()
    run.ensure("dev")
    assert not old.exists(), "an environment of another Python version is made anew"
    assert run.read_marker() == list(sys.version_info[:2])


def test_a_foreign_environment_is_left_alone(run: ModuleType, tmp_path: Path) -> None:
    mine = tmp_path / "venv" / "pyvenv.cfg"
    mine.parent.mkdir()
    mine.touch()
    with pytest.raises(run.Failure, match="was not made by run.py"):
        run.ensure("dev")
    assert mine.exists()


def test_no_network_is_told(run: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("WARNING: Retrying ... Failed to establish a new connection: [Errno 101]\nERROR: No matching\n")
    assert "no network" in run.install_hint("requirements.txt", "ERROR: No matching", log)
    log.write_text("ERROR: something else\n")
    assert "no network" not in run.install_hint("requirements.txt", "ERROR: something else", log)


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_ci_calls_the_test_command(repo_root: Path) -> None:
    script = repo_root / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "python3 run.py test" in script.read_text()


CHILD = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it, and hands that on
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    folder.rmdir()
    sys.exit(130)
"""
PARENT = """
import importlib.util, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
spec = importlib.util.spec_from_file_location("run_under_test", "run.py")
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)
run.PYTHON, run.demo = sys.executable, lambda arguments: run.call(*arguments)
sys.exit(run.main(["demo", *sys.argv[1:]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for a group of processes")
def test_ctrl_c_waits_until_the_child_has_put_away_what_it_made(repo_root: Path, tmp_path: Path) -> None:
    """It was killed after 0.25 s, and a temporary folder stayed."""
    (tmp_path / "child.py").write_text(CHILD)
    command = [sys.executable, "-c", PARENT, str(tmp_path / "child.py"), str(tmp_path / "made")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=repo_root, text=True, start_new_session=True, **pipes) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "ready\n"
        os.killpg(parent.pid, signal.SIGINT)
        _, errors = parent.communicate(timeout=30)
    assert (parent.returncode, errors.strip()) == (130, "run.py: stopped")
    assert not (tmp_path / "made").exists()


def test_the_demo_ends_quietly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from scripts import demo

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", stopped)
    monkeypatch.setattr(demo, "check_packages", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["demo", "--comfyui", str(tmp_path), "--out", str(tmp_path)])
    assert demo.main() == 130
