"""What the command lines share: a mistake ends in one line that says what to do, and no name can lose a result."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from motionprompt_core.flow import available_flow_models


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], object], summary: str, description: str | None = None
) -> argparse.ArgumentParser:
    """Adds a command to an argparse parser's subparsers; its help tells the defaults."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = commands.add_parser(name, formatter_class=formatter, help=summary, description=description)
    parser.set_defaults(run=run)
    return parser


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Which flow model measures motion, and where the networks run."""
    flow_models = available_flow_models()
    about = "measures motion; the first unless given"
    parser.add_argument("--flow-model", choices=flow_models, default=flow_models[0], help=about)
    parser.add_argument("--flow-weights", type=Path, help="a .safetensors with its weights, if they are not installed")
    parser.add_argument("--device", default="cpu", help="where the networks run, e.g. cuda")


def run_commands(program: str, description: str, families: tuple[ModuleType, ...], arguments: list[str] | None) -> int:
    """Runs one of the commands that the modules `families` add with their `add_to`.

    Returns:
        The exit code: 2 after a mistake of the user's, 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A console of another code page shows a name that it lacks with question marks, and not a traceback.
            stream.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(prog=program, description=description)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for family in families:
        family.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"{parser.prog} {options.command}: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        with contextlib.suppress(MemoryError):
            print(f"{parser.prog} {options.command}: out of memory ({error}). Give it less at a time.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0
