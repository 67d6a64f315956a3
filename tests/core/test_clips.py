"""From folders of clips to a discriminator: what is read, what is skipped, what is kept, and going on after a stop."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from motionprompt_core.discriminator.cache import STILL, cached_flows, check_distinct
from motionprompt_core.discriminator.clips import (
    ClipSettings,
    Frames,
    check_apart,
    compressed,
    find_clips,
    read_clip,
    without_borders,
)
from motionprompt_core.discriminator.model import DiscriminatorConfig, load_discriminator
from motionprompt_core.discriminator.train import train_discriminator
from motionprompt_core.flow.raft import RaftFlow
from motionprompt_tools.__main__ import main
from motionprompt_tools.writing import write_video
from tests.gradient_flow import GradientFlow

SETTINGS = ClipSettings(size=64, grid=32, pairs=3, gaps=(1,), max_frames=8)
TINY = DiscriminatorConfig(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=2, mlp_hidden=48)


def drifting(frames: int, speed: float, jitter: float = 0.0, seed: int = 0, size: int = 64) -> torch.Tensor:
    """A soft pattern that moves to the right by `speed` px per frame, (frames, 3, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    phase = 6 * torch.rand(3, 1, 1, 1, generator=generator)
    x = torch.arange(size)[None, None, :] - speed * torch.arange(frames)[:, None, None]
    x = x + jitter * torch.randn(frames, 1, 1, generator=generator)
    y = torch.arange(size)[None, :, None] + jitter * torch.randn(frames, 1, 1, generator=generator)
    return (0.5 + 0.25 * torch.sin(x / 6 + phase) + 0.2 * torch.cos(y / 7 + phase)).movedim(0, 1)


def write_frames(video: torch.Tensor, folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(video.movedim(1, -1)):
        Image.fromarray((frame * 255).byte().numpy()).save(folder / f"{number:03d}.png")


def test_finds_videos_animations_and_folders_of_frames(tmp_path):
    for name in ("a.mp4", "b.webp", "sub/c.gif"):
        write_video(drifting(6, 1), tmp_path / name)
    write_frames(drifting(6, 1), tmp_path / "frames")
    (tmp_path / "notes.txt").write_text("no clip")
    clips = find_clips(tmp_path)
    assert [clip.relative_to(tmp_path).as_posix() for clip in clips] == ["a.mp4", "b.webp", "frames", "sub/c.gif"]
    assert all(read_clip(clip, ClipSettings(folder_fps=8, size=64)).shape == (6, 3, 64, 64) for clip in clips)


def test_previews_beside_videos_are_no_clip(tmp_path):
    """Many nodes save a picture beside each video; together they would be one more clip, full of cuts."""
    write_frames(drifting(2, 9), tmp_path / "clips")
    for name in ("a.mp4", "b.mp4"):
        write_video(drifting(6, 1), tmp_path / "clips" / name)
    assert [clip.name for clip in find_clips(tmp_path)] == ["a.mp4", "b.mp4"]


def test_an_empty_or_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no clip"):
        find_clips(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_clips(tmp_path / "nowhere")


def test_the_frame_rate_makes_no_difference(tmp_path):
    """The same scene at 24 and at 8 frames a second gives the same flow: the net cannot learn the rate."""
    write_video(drifting(24, 0.5), tmp_path / "24.mp4", fps=24)
    write_video(drifting(8, 1.5), tmp_path / "8.mp4", fps=8)
    fast, slow = (read_clip(tmp_path / f"{fps}.mp4", SETTINGS) for fps in (24, 8))
    assert fast.shape == slow.shape
    assert (fast - slow).abs().mean() < 0.01


def test_black_borders_are_cut_off():
    video = torch.zeros(4, 3, 60, 80)
    video[:, :, 10:50, 5:75] = 0.2 + 0.6 * torch.rand(4, 3, 40, 70, generator=torch.Generator().manual_seed(0))
    assert without_borders(video).shape == (4, 3, 40, 70)
    assert without_borders(torch.zeros(4, 3, 60, 80)).shape == (4, 3, 60, 80)


def test_broken_clips_are_skipped_by_name_and_the_rest_is_used(tmp_path):
    write_video(drifting(6, 1), tmp_path / "good.mp4")
    write_video(drifting(1, 1), tmp_path / "one_frame.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    whole = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "truncated.mp4").write_bytes(whole[: len(whole) // 3])
    found = cached_flows(find_clips(tmp_path), tmp_path / "cache", GradientFlow(), SETTINGS)
    assert [Path(name).name for name in found.names] == ["good.mp4"]
    assert sorted(Path(name).name for name in found.skipped) == ["one_frame.mp4", "text.mp4", "truncated.mp4"]
    assert found[0].shape == (3, 2, 32, 32)


class Counting(GradientFlow):
    calls = 0

    def forward(self, a, b):
        Counting.calls += 1
        return super().forward(a, b)


def test_flows_are_kept_by_content_and_settings(tmp_path):
    write_video(drifting(6, 1), tmp_path / "in" / "a.mp4")
    flow, cache = Counting(), tmp_path / "cache"

    def calls(settings: ClipSettings) -> int:
        before = Counting.calls
        cached_flows(find_clips(tmp_path / "in"), cache, flow, settings)
        return Counting.calls - before

    assert calls(SETTINGS) > 0
    (tmp_path / "in" / "a.mp4").rename(tmp_path / "in" / "renamed.mp4")
    assert calls(SETTINGS) == 0
    assert calls(ClipSettings(**{**SETTINGS.to_dict(), "pairs": 2})) > 0
    for file in cache.iterdir():
        file.write_bytes(b"damaged")
    assert calls(SETTINGS) > 0  # made again, not trusted


@pytest.fixture
def sides(tmp_path):
    for side, jitter in (("real", 0.0), ("generated", 2.0)):
        for seed in range(6):
            write_video(drifting(8, 0.5 + 0.2 * seed, jitter, seed), tmp_path / side / f"{seed}.mp4")
    return tmp_path


def test_a_stopped_training_ends_like_one_that_was_not(sides):
    clips = [
        cached_flows(find_clips(sides / side), sides / "cache", GradientFlow(), SETTINGS)
        for side in ("real", "generated")
    ]

    class Stop(Exception):
        pass

    def stop(epoch):
        if epoch.epoch in (0, 2):
            raise Stop

    whole = train_discriminator(*clips, TINY, epochs=4, noise=0.1)
    file = sides / "state.pt"
    for _ in range(2):
        with pytest.raises(Stop):
            train_discriminator(*clips, TINY, epochs=4, noise=0.1, checkpoint=file, on_epoch=stop)
    resumed = train_discriminator(*clips, TINY, epochs=4, noise=0.1, checkpoint=file)
    assert resumed.history == whole.history
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="other clips or settings"):
        train_discriminator(*clips, TINY, epochs=4, noise=0.2, checkpoint=file)
    for content in (file.read_bytes()[:-100], b"", pickle.dumps(print)):  # cut short, empty, code
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint .* is damaged .* Remove it"):
            train_discriminator(*clips, TINY, epochs=4, noise=0.1, checkpoint=file)


@pytest.mark.slow
@pytest.mark.parametrize("flows", [1, 2])
def test_the_commands_train_and_judge_a_discriminator(sides, capsys, flows):
    (sides / "real" / "broken.mp4").write_text("no video")
    common = [
        "--real",
        str(sides / "real"),
        "--generated",
        str(sides / "generated"),
        "--cache",
        str(sides / "cache"),
        "--flow-model",
        "gradient",
        "--frame-size",
        "64",
        "--pairs",
        "3",
        "--gaps",
        "1",
    ]
    out = sides / "mine.safetensors"
    train = ["train-discriminator", *common, "--out", str(out), "--flows", str(flows)]
    assert main([*train, "--epochs", "2", "--trained-on", "stripes"]) == 0
    assert "broken.mp4" in capsys.readouterr().err
    model = load_discriminator(out)
    assert model.config.flow_model == "gradient" and model.config.trained_on == "stripes"
    assert model.config.flows == flows
    assert model.metadata["real_clips"] == 6 and 0 <= model.metadata["calibration_error"] <= 1
    results = []
    for how in ([], common[6:]):  # without settings, the file's
        assert main(["evaluate-discriminator", str(out), *common[:6], *how, "--json", str(sides / "r.json")]) == 0
        results.append(json.loads((sides / "r.json").read_text()))
    assert results[0] == results[1] and 0 <= results[0]["auroc"] <= 1 and len(results[0]["skipped"]) == 1


def test_a_mistake_is_one_line_that_says_what_to_do(sides, capsys):
    arguments = ["--generated", str(sides / "generated"), "--out", str(sides / "d.safetensors")]
    assert main(["train-discriminator", "--real", str(sides / "nothing"), *arguments]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_compression_makes_less_difference_than_it_did():
    """The same clip, once coarsely compressed: recompressing both brings them nearer to each other."""
    clip = drifting(4, 1)
    fine_grain = torch.rand(clip.shape, generator=torch.Generator().manual_seed(0)) * 0.2
    sharp = (clip + fine_grain).clamp(0, 1)
    coarse = compressed(sharp, 15)
    before = (sharp - coarse).abs().mean()
    after = (compressed(sharp, 50) - compressed(coarse, 50)).abs().mean()
    assert after < before


def test_clips_that_do_not_move_are_left_out_of_a_training_but_can_be_judged(tmp_path):
    write_video(drifting(6, 1), tmp_path / "moving.mp4")
    write_video(drifting(1, 0).expand(6, -1, -1, -1), tmp_path / "still.mp4")
    clips = find_clips(tmp_path)
    found = cached_flows(clips, tmp_path / "cache", GradientFlow(), SETTINGS, min_motion=STILL)
    assert [Path(name).name for name in found.names] == ["moving.mp4"]
    assert "does not move" in found.skipped[str(tmp_path / "still.mp4")]
    assert len(cached_flows(clips, tmp_path / "cache", GradientFlow(), SETTINGS)) == 2


def test_frames_in_memory_are_clips_like_files(tmp_path):
    clips = [Frames("one", drifting(6, 1, size=80)), Frames("two", drifting(6, 2)), Frames("short", drifting(1, 1))]
    found = cached_flows(clips, tmp_path, GradientFlow(), SETTINGS)
    assert found.names == ["one", "two"] and list(found.skipped) == ["short"]
    assert found[0].shape == (3, 2, 32, 32)
    assert cached_flows(clips[:1], tmp_path, GradientFlow(), SETTINGS).files == found.files[:1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_a_full_disk_is_named_and_what_was_finished_is_kept(tmp_path):
    """A file-size limit stands in for the full disk: the system refuses to write on, as it does there."""
    for number, gap in enumerate((1, 2)):
        write_video(drifting(8, gap), tmp_path / "in" / f"{number}.mp4")
    script = f"""
import resource, sys
from pathlib import Path
from tests.gradient_flow import GradientFlow
from motionprompt_core.discriminator.cache import cached_flows
from motionprompt_core.discriminator.clips import ClipSettings, find_clips
clips = find_clips({str(tmp_path / "in")!r})
settings = ClipSettings(size=64, grid=32, pairs=3, gaps=(1,), max_frames=8)
cached_flows(clips[:1], {str(tmp_path / "cache")!r}, GradientFlow(), settings)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    cached_flows(clips, {str(tmp_path / "cache")!r}, GradientFlow(), settings)
except OSError as error:
    print(error)
"""
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, timeout=300)
    assert "could not be written" in result.stdout and "disk full" in result.stdout, result.stderr
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".safetensors"]  # one, whole, no leftovers


def test_a_clip_counts_once_and_on_one_side(tmp_path):
    """Copies among the clips that a training holds back would be judged by what it was trained on."""
    for folder in ("real", "real/made"):
        for number in range(2):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_video(drifting(8, 1 + number), tmp_path / folder / f"{len(folder)}_{number}.mp4")
    settings = ClipSettings(size=64, grid=32, pairs=3, gaps=(1,), max_frames=8)
    with pytest.raises(ValueError, match="2 clip.s. are on both sides"):
        check_apart(find_clips(tmp_path / "real"), find_clips(tmp_path / "real" / "made"))
    real = cached_flows(find_clips(tmp_path / "real"), tmp_path / "cache", GradientFlow(), settings)
    assert len(real) == 2 and all("it counts once" in reason for reason in real.skipped.values())
    made = cached_flows(find_clips(tmp_path / "real" / "made"), tmp_path / "cache", GradientFlow(), settings)
    with pytest.raises(ValueError, match="2 clip.s. of the real side are on the generated side"):
        check_distinct(real, made)


def test_other_weights_of_a_flow_model_make_other_flows(tmp_path):
    write_video(drifting(6, 1), tmp_path / "a.mp4")
    settings = ClipSettings(size=128, grid=32, pairs=2, gaps=(1,), max_frames=6)
    files = []
    for seed in range(2):
        torch.manual_seed(seed)
        files += cached_flows([tmp_path / "a.mp4"], tmp_path / "cache", RaftFlow("raft_small", 1), settings).files
    assert files[0] != files[1]


def test_a_name_that_the_console_lacks_does_not_lose_the_result(tmp_path):
    """Output that is redirected on Windows has a code page's encoding."""
    write_video(drifting(6, 1), tmp_path / "\u4e2d.mp4")
    command = ["-m", "motionprompt_tools", "metrics", str(tmp_path / "\u4e2d.mp4"), "--flow-model", "lucas_kanade"]
    result = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert b"?.mp4" in result.stdout and b"sharpness" in result.stdout
