"""The parts of `run.py test`: which there are, and what is told at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import suite
from tests.scripts.test_locate import make_comfyui


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(suite, "LOGS", tmp_path / "logs")
    return tmp_path / "logs"


def test_everything_runs_on_the_oldest_and_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [make_comfyui(tmp_path / version, version) for version in ("0.3.75", "0.8.0", "0.33.0")]
    monkeypatch.setattr(suite, "comfyuis", lambda: paths)
    chosen = {part.comfyui: part.arguments[-1] for part in suite.parts() if part.comfyui is not None}
    assert chosen == {paths[0]: "inprocess", paths[1]: "inprocess and every_version", paths[2]: "inprocess"}
    named = [part.arguments[3] for part in suite.parts() if "-k" in part.arguments]
    assert named == ["not (0.3.75 or 0.33.0 or 0.8.0)", "0.3.75", "0.33.0", "0.8.0"]
    monkeypatch.setattr(suite, "comfyuis", lambda: paths[:1])
    assert [part.comfyui for part in suite.parts() if part.comfyui is not None] == paths[:1], "once if it is alone"


def test_the_last_line_counts_all_parts(logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_good.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): pass\ndef test_c(): pytest.skip('no')\n"
    )
    (tmp_path / "test_bad.py").write_text("def test_d(): pass\ndef test_e(): assert False, 'because'\n")
    parts = [
        suite.Part(name, ["-rs", "-p", "no:cacheprovider", str(tmp_path / f"test_{name}.py")])
        for name in ("good", "bad")
    ]
    suite.run(parts)
    assert suite.summary(parts, 1.0) == 1
    told = capsys.readouterr().out
    assert "because" in told, "what a part printed is shown"
    assert "skipped 1: no" in told.splitlines()[-5:], "with its reason"
    assert told.splitlines()[-1] == "1 failed, 3 passed, 1 skipped in 1.00s"
    assert [part.code for part in parts] == [0, 1]
    assert suite.summary(parts[:1], 1.0) == 0
    assert sorted(path.name for path in logs.glob("*.log")) == ["bad.log", "good.log"]
