"""python -m research COMMAND: what the claims rest on. `--help` lists the commands."""

from __future__ import annotations

import argparse
import sys

from .cost import commands as bench
from .evaluation import commands as evaluation


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; a mistake of the user's ends with one line that says what to do, and with 2."""
    parser = argparse.ArgumentParser(prog="python -m research", description="Evidence and costs of MotionPrompt.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for family in (evaluation, bench):
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
