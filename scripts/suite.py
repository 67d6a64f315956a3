"""All tests, in parts that run beside each other: `python run.py test`.

One process can import one ComfyUI only, so the tests that import it are parts of their own, one for each version. The
parts are independent: each has its own servers, folders and ports. What a part printed appears when it has ended, and
is kept in output/tests.
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
from typing import IO

from .comfy_server import comfyui_version
from .locate import comfyuis, oldest_and_newest

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "output" / "tests"
JOBS = max(1, min(4, os.cpu_count() or 1))
NEWS_EVERY = 60.0  # seconds


@dataclass
class Part:
    """A pytest process of its own.

    Attributes:
        name: what the summary calls it. expression: pytest's -m. comfyui: the one that it imports.
    """

    name: str
    expression: str
    comfyui: Path | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    started: float = 0.0
    seconds: float = 0.0

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name.replace(' ', '-')}.log"

    def start(self, log: IO[bytes]) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // JOBS))}
        if self.comfyui is not None:
            env["MOTIONPROMPT_INPROCESS"] = str(self.comfyui)
        command = [sys.executable, "-m", "pytest", "-m", self.expression, "-o", f"cache_dir={LOGS / self.log.stem}"]
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)

    def ended(self) -> bool:
        """Whether it has; notes how long it took when it is first seen to have."""
        if self.process is None or self.process.poll() is None:
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


def parts() -> list[Part]:
    """All of them, the longest first, so that none is left alone at the end."""
    ends = oldest_and_newest(comfyuis())
    found = [Part("live servers", "comfyui and not inprocess")]
    for path in comfyuis():
        chosen = "inprocess" if path in ends else "inprocess and every_version"
        found.append(Part(f"in ComfyUI {comfyui_version(path)}", chosen, path))
    found.sort(key=lambda part: part.expression == "inprocess and every_version")
    return [*found, Part("without ComfyUI", "not comfyui")]


def run(waiting: list[Part]) -> None:
    """Runs them, `JOBS` at a time, and shows what each printed when it has ended."""
    LOGS.mkdir(parents=True, exist_ok=True)
    running: list[Part] = []
    news = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < JOBS:
                running.append(part := waiting.pop(0))
                with part.log.open("wb") as log:
                    part.start(log)
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
            if part.process is not None:
                part.process.terminate()


def main() -> int:
    found, start = parts(), time.monotonic()
    run(list(found))
    total: Counter[str] = Counter()
    print("\n######## all tests")
    for part in found:
        total += part.counts()
        code = part.process.returncode if part.process else 1
        state = "passed" if code == 0 else f"FAILED (exit code {code})"
        print(f"{part.name:24}{state:24}{part.seconds / 60:6.1f} min")
    words = sorted(total, key=lambda word: (word != "failed", word != "passed", word))
    print(", ".join(f"{total[word]} {word}" for word in words), f"in {time.monotonic() - start:.0f}s")
    return int(any(part.process is None or part.process.returncode != 0 for part in found))


if __name__ == "__main__":
    sys.exit(main())
