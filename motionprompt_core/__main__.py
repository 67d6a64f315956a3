"""python -m motionprompt_core COMMAND: the core without ComfyUI. `--help` lists the commands."""

from __future__ import annotations

import argparse
import sys

from .discriminator import cli as training
from .metrics import cli as measure


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; a mistake of the user's ends with one line that says what to do, and with 2."""
    parser = argparse.ArgumentParser(prog="python -m motionprompt_core", description="MotionPrompt without ComfyUI.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for family in (training, measure):
        family.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"{parser.prog} {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
