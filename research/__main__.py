"""python -m research COMMAND: what the claims rest on. `--help` lists the commands."""

from __future__ import annotations

import sys

from motionprompt_tools.commandline import run_commands

from .cost import commands as cost
from .cost import estimate, video_models
from .evaluation import commands as evaluation


def main(arguments: list[str] | None = None) -> int:
    return run_commands(
        "python -m research",
        "Evidence and costs of MotionPrompt.",
        (evaluation, cost, estimate, video_models),
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
