"""What every test shares: the import path, and an honest list of what was skipped."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# At the end: ComfyUI has a module called `nodes`, which must stay ahead of this repository's folder of that name.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


import tests.gradient_flow  # noqa: E402, F401 - registers the tests' flow model


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """Folder of the repository, which is the node pack."""
    return ROOT


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not os.environ.get("MOTIONPROMPT_EXHAUSTIVE"):
        left_out = [item for item in items if item.get_closest_marker("exhaustive") is not None]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
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
    from scripts.locate import what_is_covered

    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    terminalreporter.section("what this run covered")
    for line in what_is_covered():
        terminalreporter.line(line)
    for reason, count in reasons.most_common():
        terminalreporter.line(f"skipped {count}: {reason}")
    if not reasons:
        terminalreporter.line("skipped: nothing")


def _reason(report: pytest.TestReport) -> str:
    longrepr = report.longrepr
    reason = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return reason.removeprefix("Skipped: ")
