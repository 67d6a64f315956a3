"""python -m motionprompt_tools COMMAND. `--help` lists the commands."""

from __future__ import annotations

import sys

from . import convert, discriminators, metrics
from .commandline import run_commands


def main(arguments: list[str] | None = None) -> int:
    commands = (discriminators, metrics, convert)
    return run_commands("python -m motionprompt_tools", "MotionPrompt without ComfyUI.", commands, arguments)


if __name__ == "__main__":
    sys.exit(main())
