"""python -m motionprompt_core COMMAND: the core without ComfyUI. `--help` lists the commands."""

from __future__ import annotations

import sys

from .commandline import run_commands
from .discriminator import cli as training
from .media import convert
from .metrics import cli as metrics


def main(arguments: list[str] | None = None) -> int:
    commands = (training, metrics, convert)
    return run_commands("python -m motionprompt_core", "MotionPrompt without ComfyUI.", commands, arguments)


if __name__ == "__main__":
    sys.exit(main())
