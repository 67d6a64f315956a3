"""What every test shares: the import path, and an honest list of what was skipped."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What the README says was tested; the last lines of a run tell which of these it had.
VERSIONS = ("0.3.75", "0.8.0", "0.12.1", "0.18.1", "0.33.0")

# At the end: ComfyUI has a module called `nodes`, which must stay ahead of this repository's folder of that name.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """Folder of the repository, which is the node pack."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ROOT / "tests" / "comfyui" in item.path.parents:
            item.add_marker(pytest.mark.comfyui)
        if "bare_comfy" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.inprocess)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("ade") is not None:
        from scripts.locate import animatediff

        if animatediff() is None:
            pytest.skip("AnimateDiff-Evolved is absent (set COMFYUI_PATH to a ComfyUI that has it)")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from scripts.comfy_server import comfyui_version
    from scripts.locate import animatediff, comfyuis, oldest_and_newest

    found, ends = comfyuis(), oldest_and_newest(comfyuis())
    between = [comfyui_version(path) for path in found if path not in ends]
    absent = [version for version in VERSIONS if version not in map(comfyui_version, found)]
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    terminalreporter.section("what this run covered")
    terminalreporter.line(f"ComfyUI: {', '.join(map(comfyui_version, ends)) or 'none'}")
    if between:
        terminalreporter.line(f"start-up, quickstart, identity, gradient and workflows also on {', '.join(between)}")
    if absent:
        terminalreporter.line(f"absent, so not tested: ComfyUI {', '.join(absent)} (name folders in COMFYUI_PATH)")
    terminalreporter.line(f"AnimateDiff-Evolved: {animatediff() or 'absent'}")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"skipped {count}: {reason}")
    if not reasons:
        terminalreporter.line("skipped: nothing")


def _reason(report: pytest.TestReport) -> str:
    longrepr = report.longrepr
    reason = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return reason.removeprefix("Skipped: ")
