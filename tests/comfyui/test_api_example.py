"""docs/queue_by_api.py, the example for scripts and agents, on a live server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from scripts.make_workflows import quickstart_api

FAST = ["KSampler.steps=2", "MotionPromptKSampler.steps=2", "EmptyLatentImage.batch_size=4"]
FAST += ["MotionPromptKSampler.guide=tokens"]  # at two steps no estimate is clear


def run(repo_root: Path, server_url: str, to: Path, *changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repo_root / "docs" / "queue_by_api.py"), "--server", server_url, "--to", str(to)]
    for change in (*FAST, *changes):
        command += ["--set", change]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=to)


def test_its_workflow_is_the_quickstart(comfy_server, repo_root):
    """`python -m scripts.make_workflows quickstart_api` writes it anew."""
    saved = json.loads((repo_root / "workflows" / "api" / "quickstart.json").read_text(encoding="utf-8"))
    now = quickstart_api(comfy_server.object_info())
    assert [(node["class_type"], node["inputs"]) for node in saved.values()] == [
        (node["class_type"], node["inputs"]) for node in now.values()
    ]


def test_it_saves_the_videos_and_says_what_the_guidance_did(comfy_server, repo_root, tmp_path):
    done = run(repo_root, comfy_server.url, tmp_path, "PrimitiveStringMultiline.value=a red circle moving up on grass")
    assert done.returncode == 0, done.stderr
    videos = sorted(tmp_path.glob("*.webp"))
    assert [path.name.split("_")[0] for path in videos] == ["compare", "motionprompt", "plain"]
    for path in videos:
        with Image.open(path) as video:
            assert video.n_frames == 4
    assert all(str(path) in done.stdout for path in videos)
    assert "state: done" in done.stdout and "guided steps: [" in done.stdout


def test_a_refusal_and_a_failing_node_are_told_in_their_own_words(comfy_server, repo_root, tmp_path):
    for change, said in {
        "MotionPromptKSampler.start=0.95": "The guided window is negative: it starts at 0.95 and stops at 0.9.",
        "MotionPromptConditioning.init_words=very smooth": "there are only 1 learnable tokens",
        "KSampler.nothing=1": "no such input",
    }.items():
        done = run(repo_root, comfy_server.url, tmp_path, change)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    done = run(repo_root, "http://127.0.0.1:9", tmp_path)
    assert done.returncode == 1 and "No ComfyUI answers at http://127.0.0.1:9" in done.stderr
