"""All tests, in parts that run beside each other: `python run.py test`.

One process can import one ComfyUI only, so the tests that import it are parts of their own, one for each version; so
are those that start a server of each version. The parts are independent: each has its own servers, folders and ports.
What a part printed appears when it has ended, and is kept in output/tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .comfy_server import comfyui_version
from .locate import comfyuis, oldest_and_newest, what_is_covered

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "output" / "tests"
JOBS = max(1, min(4, os.cpu_count() or 1))
NEWS_EVERY = 60.0  # seconds


@dataclass
class Part:
    """A pytest process of its own.

    Attributes:
        name: what the summary calls it. arguments: pytest's. comfyui: the one that it imports.
        seconds: how long it took, once it has ended.
    """

    name: str
    arguments: list[str]
    comfyui: Path | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    started: float = 0.0
    seconds: float = 0.0

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name.replace(' ', '-')}.log"

    def start(self) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // JOBS))}
        if self.comfyui is not None:
            env["MOTIONPROMPT_INPROCESS"] = str(self.comfyui)
        command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={LOGS / self.log.stem}", "--durations=12"]
        command += self.arguments
        self.started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)

    @property
    def code(self) -> int | None:
        """pytest's exit code; None before the end."""
        return self.process.poll() if self.process is not None else None

    def stop(self) -> None:
        """Waits for it, because Ctrl+C reached it, too, and it ends its servers; ends it if it does not end itself."""
        if self.process is not None and self.code is None:
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.terminate()

    def ended(self) -> bool:
        """Whether it has; notes how long it took when it is first seen to have."""
        if self.code is None:
            return False
        self.seconds = self.seconds or time.monotonic() - self.started
        return True

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def progress(self) -> str:
        """The percentage that pytest wrote last."""
        return (re.findall(r"\[ *(\d+%)\]", self.text()) or ["0%"])[-1]

    def counts(self) -> Counter[str]:
        """What pytest's last line counts: passed, failed, skipped, ..."""
        lines = [line for line in self.text().splitlines() if re.search(r"\d+ \w+.* in [\d.:]+", line)]
        found = re.findall(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed)", lines[-1]) if lines else []
        return Counter({word: int(number) for number, word in found})

    def skipped(self) -> Counter[str]:
        """How often which reason, from pytest's summary."""
        reasons: Counter[str] = Counter()
        for number, reason in re.findall(r"^SKIPPED \[(\d+)\] .*?\.py(?::\d+)?: (.+)$", self.text(), re.MULTILINE):
            reasons[reason.strip()] += int(number)
        return reasons


def parts() -> list[Part]:
    """All of them, the longest first, so that none is left alone at the end."""
    paths = comfyuis()
    ends = oldest_and_newest(paths)
    live, imported = "comfyui and not inprocess", "inprocess"
    versions = {path: comfyui_version(path) for path in [*ends, *(path for path in paths if path not in ends)]}
    return [
        Part("others with ComfyUI", ["-m", live, "-k", f"not ({' or '.join(versions.values()) or 'none'})"]),
        *(Part(f"in ComfyUI {versions[path]}", ["-m", imported], path) for path in ends),
        *(Part(f"on a live {version}", ["-m", live, "-k", version]) for version in versions.values()),
        Part("without ComfyUI", ["-m", "not comfyui and not inprocess"]),
        *(
            Part(f"in ComfyUI {version}", ["-m", f"{imported} and every_version"], path)
            for path, version in versions.items()
            if path not in ends
        ),
    ]


def run(waiting: list[Part]) -> None:
    """Runs them, `JOBS` at a time, and shows what each printed when it has ended."""
    LOGS.mkdir(parents=True, exist_ok=True)
    waiting, running, news = list(waiting), [], time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < JOBS:
                running.append(part := waiting.pop(0))
                part.start()
                print(f"started: tests {part.name}", flush=True)
            time.sleep(0.5)
            for part in [part for part in running if part.ended()]:
                running.remove(part)
                print(f"\n######## tests {part.name}\n{part.text()}", flush=True)
            if time.monotonic() - news > NEWS_EVERY:
                news = time.monotonic()
                print("; ".join(f"{part.name}: {part.progress()}" for part in running), flush=True)
    finally:
        for part in running:
            part.stop()


def summary(found: list[Part], seconds: float) -> int:
    """Prints how each part ended and, as pytest does, how many tests passed; returns the exit code."""
    print("\n######## all tests")
    total: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for part in found:
        total += part.counts()
        reasons += part.skipped()
        state = "passed" if part.code == 0 else f"FAILED (exit code {part.code})"
        print(f"{part.name:24}{state:24}{part.seconds / 60:6.1f} min")
    for line in what_is_covered():
        print(line)
    for reason, count in reasons.most_common():
        print(f"skipped {count}: {reason}")
    counted = [f"{total[word]} {word}" for word in ("failed", "passed", *sorted({*total} - {"failed", "passed"}))]
    print(f"{', '.join(line for line in counted if not line.startswith('0 '))} in {seconds:.2f}s")
    return int(any(part.code != 0 for part in found))


def main() -> int:
    found, start = parts(), time.monotonic()
    run(found)
    return summary(found, time.monotonic() - start)


if __name__ == "__main__":
    sys.exit(main())
