"""Rules of the house that a reader would otherwise have to check by eye."""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if sys.version_info >= (3, 11):
    import tomllib
else:
    import pip._vendor.tomli as tomllib

PACK = ("motionprompt_core", "nodes")  # what ComfyUI loads
PUBLISHED = (*PACK, "motionprompt_tools")
BINARY = {".safetensors", ".jpg", ".png", ".webp", ".gif", ".npz", ".mp4", ".pt"}
MAX_LINES = 350
MAX_FUNCTION = 60
MAX_WEIGHTS = 40 * 2**20

# Put together from pieces, so that this file does not contain them.
REGISTRIES = [name + "." + end for name, end in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))]
MACHINE_PATHS = ["/" + name + "/" for name in ("work", "root", "home")] + ["C:" + "\\Users"]


def tracked() -> list[Path]:
    """Files that git knows (all files where there is no git, as in an installed pack)."""
    try:
        names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
        return [ROOT / name for name in names if name and (ROOT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")


def python_files(*folders: str) -> list[Path]:
    paths = [path for path in tracked() if path.suffix == ".py"]
    return [path for path in paths if not folders or path.relative_to(ROOT).parts[0] in folders]


def imports(path: Path) -> list[tuple[int, str, int]]:
    """(level, module, line) of every import in a file, at any depth; level 0 is absolute."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", node.lineno))
    return found


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT).as_posix()}:{line}"


def test_no_registry_hosts_and_no_machine_paths() -> None:
    bad = []
    for path in tracked():
        if path.suffix in BINARY or path.name == "LICENSE":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            bad += [f"{where(path, number)}: {word}" for word in REGISTRIES + MACHINE_PATHS if word in line]
    assert not bad, "\n".join(bad)


def test_python_sources_are_ascii() -> None:
    bad = [path.name for path in python_files() if not path.read_bytes().isascii()]
    assert not bad, bad


def test_files_are_short() -> None:
    lengths = {where(path, 1): len(path.read_text().splitlines()) for path in python_files(*PUBLISHED)}
    too_long = {name: lines for name, lines in lengths.items() if lines > MAX_LINES}
    assert not too_long, too_long


def test_core_never_imports_comfyui() -> None:
    comfy = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "server", "execution", "latent_preview"}
    bad = []
    for path in python_files("motionprompt_core"):
        depth = len(path.relative_to(ROOT).parts) - 1  # more dots than this leave motionprompt_core
        for level, module, line in imports(path):
            if (level == 0 and module.split(".")[0] in comfy) or level > depth:
                bad.append(where(path, line))
    assert not bad, bad


def test_nothing_is_imported_upwards_in_a_string() -> None:
    """The core and the host name no module outside of themselves that a reader of imports would not see."""
    ours = ("research", "scripts", "tests", "benchmarks", "motionprompt_core", "motionprompt_tools")
    bad = []
    for path in python_files(*PACK):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
            if called in ("import_module", "__import__", "spec_from_file_location", "run_module", "find_spec"):
                texts = [leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)]
                bad += [where(path, node.lineno) for text in texts if str(text).split(".")[0] in ours]
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path":
                bad.append(where(path, node.lineno))
    assert not bad, bad


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_at_once(path: Path, modules: set[str]) -> set[str]:
    """The pack's modules that importing this one imports, in so far as they stand at its top."""
    package = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join((*package[: len(package) - node.level + 1], *([node.module] if node.module else [])))
            names = [f"{base}.{alias.name}" for alias in node.names]
            found |= {name if name in modules else base for name in names} & modules
    return found - {module_of(path)}


def test_no_two_modules_import_each_other() -> None:
    paths = {module_of(path): path for path in python_files(*PACK)}
    graph = {name: imported_at_once(path, set(paths)) for name, path in paths.items()}
    done: set[str] = set()
    circles = []

    def visit(name: str, way: list[str]) -> None:
        if name in way:
            circles.append(" -> ".join([*way[way.index(name) :], name]))
        elif name not in done:
            for other in sorted(graph[name]):
                visit(other, [*way, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    assert not circles, circles


def test_functions_are_short() -> None:
    """A function does one thing; a node's list of inputs is no function but a table."""
    bad = []
    for path in python_files(*PUBLISHED):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name != "define_schema":
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                lines = max((part.end_lineno or 0 for part in body), default=0) - (body[0].lineno if body else 0) + 1
                bad += [f"{where(path, node.lineno)} {node.name}: {lines} lines"] if lines > MAX_FUNCTION else []
    assert not bad, bad


def test_imports_inside_the_pack_are_relative() -> None:
    bad = []
    for path in [*python_files(*PACK), ROOT / "__init__.py"]:
        if path.is_file():
            own = ("motionprompt_core", "motionprompt_tools", "scripts", "tests", "nodes.host")
            bad += [where(path, line) for level, module, line in imports(path) if level == 0 and module.startswith(own)]
    assert not bad, bad


def test_the_tools_stand_on_the_core_alone() -> None:
    """A user runs them without ComfyUI, and without what is not published."""
    bad = []
    for path in python_files("motionprompt_tools"):
        for level, module, line in imports(path):
            above = module.split(".")[0] in ("nodes", "research", "scripts", "tests")
            bad += [where(path, line)] if above or level > 1 else []
    assert not bad, bad


def test_imports_point_one_way() -> None:
    """The core does not know the nodes, and nodes/host does not know the node families."""
    bad = []
    for path in python_files("nodes"):
        folders = path.relative_to(ROOT).parts[:-1]
        if folders[1:2] != ("host",):
            continue
        for level, module, line in imports(path):
            leaves = level >= len(folders)  # as many dots as folders lead to nodes/, which is above host
            if leaves and not module.startswith("motionprompt_core"):
                bad.append(where(path, line))
    assert not bad, bad


def test_only_what_comfyui_brings_is_imported_at_the_top() -> None:
    """A pack that fails to import loses all its nodes: beyond ComfyUI's own packages it may need timm only."""
    allowed = {"torch", "torchvision", "numpy", "safetensors", "einops", "av", "PIL", "tqdm", "timm"}
    allowed |= {"typing_extensions", "psutil", "scipy"}  # come with torch and with ComfyUI
    allowed |= {"comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "nodes", "server"}
    bad = []
    for path in [*python_files(*PACK), ROOT / "__init__.py"]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            roots = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - allowed
            bad += [f"{where(path, node.lineno)}: {name}" for name in sorted(roots)]
    assert not bad, bad


def test_no_eval_exec_or_pip_in_the_pack() -> None:
    bad = []
    for path in [*python_files(*PUBLISHED), ROOT / "__init__.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else []:
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")
            if called:
                bad.append(where(path, node.lineno))
        if path.is_file():
            bad += [where(path, line) for _, module, line in imports(path) if module in ("subprocess", "pip", "pickle")]
    assert not bad, bad


def test_weights_are_small_and_listed() -> None:
    """weights/README.md names every file with its SHA-256."""
    weights = ROOT / "weights"
    files = [path for path in tracked() if weights in path.parents and path.suffix != ".md"]
    if not files:
        pytest.skip("no weights yet")
    assert sum(path.stat().st_size for path in files) <= MAX_WEIGHTS
    listed = (weights / "README.md").read_text(encoding="utf-8")
    for path in files:
        assert path.name in listed, f"weights/README.md does not mention {path.name}"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest in listed, f"weights/README.md has another SHA-256 for {path.name}; it is {digest}"


def test_requirement_files_agree_with_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    def lines(name: str) -> list[str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        return sorted(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))

    assert lines("requirements.txt") == sorted(project["project"]["dependencies"])
    assert lines("requirements-dev.txt") == sorted(project["dependency-groups"]["dev"])
    assert not re.search(r"^torch", "\n".join(lines("requirements.txt")), re.MULTILINE)


def test_version_is_in_the_changelog() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"## [{project['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
