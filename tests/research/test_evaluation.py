"""The scoreboard: interrupted runs, honest intervals, and a page that is made of its summaries."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
import torch

from motionprompt_core.demo.checkpoint import load_demo_weights
from motionprompt_core.flow import load_flow_model
from motionprompt_core.guidance.settings import GuidanceSettings
from research.__main__ import main
from research.demo.pipeline import DemoPipeline
from research.demo.truth import read
from research.evaluation.baselines import VARIANTS as BASELINES
from research.evaluation.cost import measure
from research.evaluation.evidence import evidence, from_text, short, to_text
from research.evaluation.frequency import mix
from research.evaluation.report import markdown
from research.evaluation.run import prompt_of
from research.evaluation.suites import suite_variants
from research.evaluation.summary import METRICS, summarise, verdict
from research.evaluation.variants import MOTIONPROMPT, PLAIN, RENDERED, Networks, Variant

CONFIG = {
    "suite": "quick",
    "settings": {},
    "words": "authentic",
    "fixed_word": "smooth",
    "steps": 20,
    "flow_model": "rife_v4.0",
    "sha256": {},
}


def command(out, *more: str) -> list[str]:
    settings = '{"start": 0, "stop": 0.5, "iterations": 1}'
    return [
        "evaluate",
        "--suite",
        "quick",
        "--seeds",
        "2",
        "--steps",
        "2",
        "--flow-model",
        "lucas_kanade_coarse",  # the other process has no flow model of the tests
        "--workers",
        "1",
        "--settings",
        settings,
        "--out",
        str(out),
        *more,
    ]


def without_times(path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in rows]
    return sorted(rows, key=lambda row: (row.get("seed", 0), row.get("variant", "")))


@pytest.mark.filterwarnings("ignore:the discriminator was trained with")
def test_a_killed_run_goes_on_to_the_same_results(tmp_path, repo_root, capsys):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, "-m", "research", *command(killed)],
        cwd=repo_root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    results = killed / "results.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (results.exists() and results.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = results.read_bytes()
    assert not (killed / "summary.json").exists()
    results.write_bytes(before + b'{"variant": "pla')  # as if killed in the middle of a line

    assert main(command(killed)) == 0
    assert results.read_bytes().startswith(before[: before.rindex(b"\n") + 1])  # nothing was made twice
    assert main(command(whole)) == 0
    assert without_times(results) == without_times(whole / "results.jsonl")
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (killed, whole)]
    assert summaries[0]["differences"] == summaries[1]["differences"]
    assert (whole / "report.md").is_file() and (whole / "report.png").is_file()

    capsys.readouterr()
    assert main(command(whole, "--word", "steady")) == 2
    assert "another run, which differs in fixed_word" in capsys.readouterr().err


def rows_of(gains: dict[str, float], seeds: int = 12) -> list[dict]:
    """Lines as a run writes them: every variant calmer than plain by its gain, whatever the seed's own level."""
    levels = torch.randn(seeds, generator=torch.Generator().manual_seed(0)).tolist()
    rows = []
    for variant, gain in gains.items():
        for seed, level in enumerate(levels):
            calm = 0.9 + 0.01 * level + gain
            rows.append(
                {
                    "variant": variant,
                    "seed": seed,
                    "temporal_flickering": calm,
                    "motion_smoothness": calm,
                    "permanence": 1.0,
                    "warping_error": 1 - calm,
                    "flow_consistency": 0.5,
                    "flow_acceleration": 1.0,
                    "jitter": 1.0,
                    "pulsation": 0.1,
                    "exposure": 0.1,
                    "discriminator_score": 0.5,
                    "dynamic_degree": 1.0,
                    "flow_magnitude": 3.0 - gain,
                    "sprite_speed": 2.5,
                    "sharpness": 9.0,
                    "colour": 1.0,
                    "ground": 1.0,
                    "shape": 1.0,
                    "direction": 1.0,
                    "frozen": False,
                    "cpu_seconds": 2.0 if variant == "motionprompt" else 1.0,
                }
            )
        rows.append(
            {"variant": variant, "seed": None, "flops": 300.0 if variant == "motionprompt" else 100.0, "memory": 10.0}
        )
    return rows


def test_the_summary_finds_a_gain_smaller_than_the_spread_of_seeds():
    variants = [PLAIN, MOTIONPROMPT, Variant("other", "no better")]
    summary = summarise(rows_of({"plain": 0, "motionprompt": 0.002, "other": 0}), variants, CONFIG)
    found = {(d["variant"], d["against"], d["metric"]): d for d in summary["differences"]}
    better = found["motionprompt", "plain", "temporal_flickering"]
    assert better["mean"] == pytest.approx(0.002) and better["low"] > 0 and better["seeds"] == 12
    assert found["motionprompt", "other", "coherence"]["low"] > 0
    assert found["other", "plain", "coherence"]["mean"] == 0
    assert found["motionprompt", "plain", "warping_error"]["high"] < 0
    assert (
        summary["variants"]["motionprompt"]["flops_ratio"] == 3
        and summary["variants"]["motionprompt"]["time_ratio"] == 2
    )
    text = markdown(summary)
    assert "**+0.002 [+0.002, +0.002]**" in text  # better
    assert "*-0.002 [-0.002, -0.002]*" in text  # motion that should have stayed


def test_a_metric_at_its_ceiling_is_no_unit_of_coherence():
    variants = [PLAIN, MOTIONPROMPT]
    rows = rows_of({"plain": 0, "motionprompt": 0.002})
    as_it_was = summarise(rows, variants, CONFIG)["variants"]["motionprompt"]["means"]["coherence"]
    for row in rows:  # one video of each variant loses its sprite: nothing to count in, but reported
        if row["seed"] == 5:
            row["permanence"] = 0.9 if row["variant"] == "plain" else 0.5
    means = summarise(rows, variants, CONFIG)["variants"]["motionprompt"]["means"]
    assert means["coherence"] == pytest.approx(as_it_was) and means["permanence"] == pytest.approx(1 - 0.5 / 12)


def test_seeds_that_an_variant_has_not_got_are_left_out():
    rows = [row for row in rows_of({"plain": 0, "motionprompt": 0.1}) if (row["variant"], row["seed"]) != ("plain", 3)]
    assert summarise(rows, [PLAIN, MOTIONPROMPT], CONFIG)["seeds"] == 11
    with pytest.raises(ValueError, match="needs at least 2"):
        summarise([row for row in rows if row["seed"] in (None, 3, 4)], [PLAIN, MOTIONPROMPT], CONFIG)


@pytest.mark.parametrize(
    ("sign", "low", "high", "expected"),
    [
        (1, 0.1, 0.2, "reproduced"),
        (1, -0.2, -0.1, "not reproduced"),
        (1, -0.1, 0.2, "undecided"),
        (-1, -0.2, -0.1, "reproduced"),
        (0, -0.1, 0.2, "reproduced"),
        (0, 0.1, 0.2, "not reproduced"),
    ],
)
def test_verdicts(sign, low, high, expected):
    assert verdict(sign, low, high) == expected


def test_names_are_unique_in_every_suite():
    for suite in ("quick", "paper", "baselines"):
        names = [variant.name for variant in suite_variants(suite, "smooth", other_discriminator=True)]
        assert len(set(names)) == len(names) and names[:2] == ["plain", "motionprompt"]


def test_the_reference_is_no_rival():
    variants = [PLAIN, MOTIONPROMPT, RENDERED, Variant("other", "no better")]
    text = markdown(
        summarise(rows_of({"plain": 0, "motionprompt": 0.01, "rendered": 1.0, "other": 0}), variants, CONFIG)
    )
    assert "More coherent than MotionPrompt, by an interval that leaves out 0: none. Less coherent: other." in text
    assert text.count("| rendered |") == 3  # differences to plain, twice, and to MotionPrompt; no cost


def test_the_reference_shows_what_the_prompt_says(weights):
    flow = load_flow_model("gradient")
    networks = Networks(weights, flow, None, flow)
    for seed in range(3):
        clip, prompt = prompt_of(seed)
        assert all(read(RENDERED.sample(networks, prompt, seed, GuidanceSettings(), "")).matches(clip).values())


def test_cost_counts_the_backward_pass_and_the_memory_alive_at_once():
    a = torch.randn(64, 64, requires_grad=True)
    assert measure(lambda: (a @ a).sum().backward())["flops"] == 3 * 2 * 64**3
    assert measure(lambda: [torch.zeros(1000) for _ in range(10)])["memory"] == 40_000

    def one_at_a_time():
        for _ in range(10):
            x = torch.zeros(1000)
            del x

    assert measure(one_at_a_time)["memory"] == 4_000


def test_the_page_on_evidence_is_made_of_the_committed_summaries(repo_root):
    folder = repo_root / "docs" / "evidence"
    written = (repo_root / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert written == evidence(folder), "python -m research evidence writes it anew"


@pytest.mark.parametrize("number", [0.9681494, 2.65849999024, 1.25e-7, -0.00245, 12345.678, 1.0, 0.3])
def test_a_number_is_kept_short_and_printed_as_before(number):
    """Rounded twice, 0.9681494 would become 0.9682."""
    kept = short(number)
    assert kept == pytest.approx(number, rel=1e-5) and len(str(kept)) <= len(str(number))
    for digits in range(5):
        assert f"{kept:.{digits}f}" == f"{number:.{digits}f}" and f"{kept:.{digits}g}" == f"{number:.{digits}g}"


def test_a_summary_is_kept_with_one_difference_a_line():
    difference = {"variant": "a", "against": "plain", "metric": "jitter", "mean": 0.123456789, "low": -1.0, "high": 1.0}
    summary = {"suite": "quick", "differences": [{**difference, "seeds": 8, "metric": m} for m in METRICS] * 3}
    text = to_text(summary)
    lines = [line for line in text.splitlines() if '"plain"' in line]
    assert lines[0].strip() == f'["a", "plain", "{next(iter(METRICS))}", 0.12346, -1.0, 1.0, 8],'
    assert len(lines) == len(summary["differences"])
    assert [item["metric"] for item in from_text(text)["differences"]] == [*METRICS] * 3


def test_frequencies_are_split_without_loss():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 4, 8, 8, generator=generator) for _ in range(2))
    assert torch.allclose(mix(a, a, 0.25), a, atol=1e-5)
    still = torch.ones_like(a)
    assert torch.allclose(mix(still, b, 0.25).mean(), torch.tensor(1.0), atol=1e-4)  # the mean is the lowest frequency
    assert torch.allclose(mix(a, b, 0.25) + mix(b, a, 0.25), a + b, atol=1e-5)


@pytest.fixture(scope="module")
def weights(repo_root):
    return load_demo_weights(repo_root / "weights" / "demo_video_model.safetensors")


@pytest.mark.parametrize(
    "variant",
    [variant for variant in BASELINES if variant.name not in ("FreeInit(3)", "FreeInit(5)")],
    ids=lambda variant: variant.name,
)
def test_baselines_change_the_video_and_do_not_ruin_it(weights, variant):
    settings = GuidanceSettings(start=0, stop=0.3, iterations=1, lambda_disc=0, max_gap=1)
    small = {"steps": 6, "frames": 4}
    plain, _ = DemoPipeline(weights, **small).sample("a red star on snow", 0)
    pipeline = variant.pipeline(
        weights, load_flow_model("gradient"), **variant.options, **{**small, "steps": round(6 * variant.step_factor)}
    )
    more = {"settings": settings} if variant.guided else {}
    video, _ = pipeline.sample("a red star on snow", 0, **more)
    assert torch.isfinite(video).all() and not torch.allclose(video, plain, atol=1e-3)
    assert (video.mean((0, 2, 3)) - plain.mean((0, 2, 3))).abs().max() < 0.25  # still about the same picture
    again, _ = pipeline.sample("a red star on snow", 0, **more)
    assert torch.equal(video, again)
