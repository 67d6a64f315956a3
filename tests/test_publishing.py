"""What the Comfy registry and a user's ComfyUI expect of the pack, as far as it can be checked without them.

The rules of `comfy node validate` are here and in ruff's settings, because comfy-cli would bring 25 packages with it.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from scripts.comfy_server import comfyui_version
from scripts.locate import comfyuis

ROOT = Path(__file__).resolve().parent.parent
if sys.version_info >= (3, 11):
    import tomllib
else:
    import pip._vendor.tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMFY = PROJECT["tool"]["comfy"]
RAW = "https://raw.githubusercontent.com/motionprompt/ComfyUI-MotionPrompt/main/"


def test_the_registrys_rules_for_pyproject() -> None:
    project = PROJECT["project"]
    assert re.fullmatch(r"[a-z][a-z0-9._-]{0,98}[a-z0-9]", project["name"])
    assert "comfyui" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert set(project["license"]) in ({"file"}, {"text"}), "the registry refuses a plain string"
    assert project["urls"]["Repository"].startswith("https://github.com/")
    assert project["description"] and COMFY["PublisherId"] and COMFY["DisplayName"]


def test_icon_and_banner_are_in_the_repository_and_of_the_registrys_size() -> None:
    for key in ("Icon", "Banner"):
        assert COMFY[key].startswith(RAW), key
        with Image.open(ROOT / COMFY[key].removeprefix(RAW)) as picture:
            width, height = picture.size
        if key == "Icon":
            assert width == height <= 400
        else:
            assert width * 9 == height * 21


def published() -> list[str]:
    """Files of the archive: what git knows without what .comfyignore (gitignore's format) leaves out."""
    command = ["git", "-c", "core.excludesFile=.comfyignore"]
    try:
        known = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split("\n")[:-1]
        ignored = subprocess.run(
            [*command, "check-ignore", "--no-index", "--stdin"],
            cwd=ROOT,
            input="\n".join(known),
            text=True,
            capture_output=True,
        ).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return sorted(set(known) - set(ignored))


def test_the_archive_holds_the_pack_and_nothing_of_its_development() -> None:
    files = published()
    for needed in (
        "__init__.py",
        "pyproject.toml",
        "requirements.txt",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "nodes/__init__.py",
        "workflows/quickstart.json",
        "workflows/quickstart.jpg",
        "web/docs/MotionPromptKSampler.md",
        "locales/zh/nodeDefs.json",
        "weights/demo_discriminator.safetensors",
    ):
        assert needed in files
    development = ("tests/", "scripts/", "research/", "docs/evidence", "docs/images/", ".ci/", ".github/", "run.py")
    development += ("requirements-dev.txt", "CONTRIBUTING.md")
    assert not [name for name in files if name.startswith(development)]
    pictures = [name for name in files if Path(name).suffix in (".png", ".jpg", ".gif", ".webp")]
    assert not [name for name in pictures if not name.startswith(("web/docs/images/", "workflows/"))]


def test_actions_and_issue_forms_are_readable_and_ask_for_what_there_is() -> None:
    """Of YAML that nobody parses until it is needed; ComfyUI brings PyYAML."""
    yaml = pytest.importorskip("yaml")
    forms = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in ROOT.glob(".github/*/*.yml")}
    assert {"checks", "publish", "bug", "idea"} <= set(forms)
    asked = [item.get("id") for item in forms["bug"]["body"]]
    assert "selfcheck" in asked and "workflow" in asked
    steps = [step.get("run", "") for job in forms["checks"]["jobs"].values() for step in job["steps"]]
    assert {"python run.py check", "python run.py test"} <= set(steps)


def requirements(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def package(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def test_an_installation_adds_timm_and_leaves_torch_alone() -> None:
    """timm is the only new package; it asks for any torch, so pip keeps the user's build."""
    assert [package(line) for line in requirements("requirements.txt")] == ["timm"]
    brought_by_comfyui = {package(line) for line in requirements("requirements-comfyui.txt")}
    brought_by_comfyui |= {"huggingface-hub"}  # a part of transformers
    for line in importlib.metadata.requires("timm") or []:
        if "extra ==" in line:
            continue
        assert package(line) in brought_by_comfyui, f"timm would bring {line}"
        if package(line).startswith("torch"):
            assert line.strip() == package(line), f"timm asks for a certain version: {line}"


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What comfy-import-guard looks at: a git repository with a tag for each ComfyUI found, and the pack's sources."""
    pytest.importorskip("comfy_import_guard", reason="comfy-import-guard is not installed")
    paths = comfyuis() or pytest.skip("no ComfyUI found (run the tests through run.py, or set COMFYUI_PATH)")
    folder = tmp_path_factory.mktemp("guard")
    core = folder / "ComfyUI"

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        subprocess.run(["git", *identity, *arguments], cwd=core, check=True, capture_output=True)

    core.mkdir()
    git("init", "-q")
    for path in paths:  # oldest first
        for old in core.iterdir():
            if old.name != ".git":
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        for source in [*path.glob("*.py"), *(path / name for name in ("comfy", "comfy_api", "comfy_execution", "app"))]:
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, core / source.name)
        git("add", "-A", "--", "*.py")
        git("commit", "-q", "-m", comfyui_version(path))
        git("tag", f"v{comfyui_version(path)}")
    pack = folder / "install" / "custom_nodes" / "ComfyUI-MotionPrompt"
    pack.mkdir(parents=True)
    for name in ("nodes", "motionprompt_core"):
        shutil.copytree(ROOT / name, pack / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "__init__.py", pack)
    return folder


def run_guard(guard: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    start = "import sys; from comfy_import_guard.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "--offline", "--quiet", "--cache-dir", str(guard), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_the_pack_uses_of_comfyui_exists_in_every_version(guard: Path) -> None:
    for path in comfyuis():
        target = f"v{comfyui_version(path)}"
        found = run_guard(guard, "check", "--comfy-dir", str(guard / "install"), "--target", target, "--no-update")
        assert found.returncode == 0, found.stdout + found.stderr
        assert "1 safe" in found.stdout, found.stdout


def test_requires_comfyui_is_what_the_guard_derives(guard: Path) -> None:
    pack = guard / "install" / "custom_nodes" / "ComfyUI-MotionPrompt"
    derived = run_guard(guard, "derive-requires", str(pack), "--no-update")
    oldest = comfyui_version(comfyuis()[0])
    assert f'requires-comfyui = ">={oldest}"' in derived.stdout, derived.stdout + derived.stderr
    assert COMFY["requires-comfyui"] == ">=0.3.75", "older ones are not tested"
