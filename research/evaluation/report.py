"""The summary as Markdown tables and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..figure import new_figure, save
from .summary import KEPT, METRICS, QUALITY

BETTER = {1: "higher", -1: "lower", 0: "unchanged"}
MEANS = (
    "temporal_flickering",
    "motion_smoothness",
    "warping_error",
    "permanence",
    "jitter",
    "pulsation",
    "exposure",
    "flow_magnitude",
    "sprite_speed",
    "sharpness",
)
# Beside what is better: whether it was bought with detail.
SHOWN = {key: METRICS[key] for key in ("jitter", "pulsation", "exposure", "coherence", "sharpness", *QUALITY)}
SUBJECTS = {"motionprompt": "MotionPrompt", "estimate": "Correcting the estimate"}
ADHERENCE = ("colour", "ground", "shape", "direction")


def markdown(summary: dict[str, Any], plot: str | None = None) -> str:
    """The report of one suite.

    Args:
        plot: file name of the picture that `draw` made, to be shown; None for a report without.
    """
    parts = [_head(summary), _means(summary)]
    parts += [f"![Coherence gained by each variant, with 95 % intervals, and against its cost]({plot})"] if plot else []
    parts += [
        _differences(summary, _against_plain(summary), "Every variant minus plain", SHOWN),
        _differences(summary, _against_plain(summary), "What should stay: every variant minus plain", KEPT),
    ]
    subject = _subject(summary)
    controls = [
        name for name in summary["variants"] if subject in summary["variants"] and name not in ("plain", subject)
    ]
    columns = [(subject, name) for name in controls]
    parts += [_differences(summary, columns, f"{SUBJECTS[subject]} minus every other variant", METRICS)]
    parts += [_cost(summary), _ahead(summary)]
    parts += [_findings(summary)] if summary["findings"] else []
    return "\n\n".join(part for part in parts if part) + "\n"


def _subject(summary: dict[str, Any]) -> str:
    """The variant that the suite is about."""
    return summary.get("subject", "motionprompt")


def _against_plain(summary: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, "plain") for name in summary["variants"] if name != "plain"]


def find(summary: dict[str, Any], variant: str, against: str, metric: str) -> dict[str, Any]:
    """The paired difference of one metric."""
    return next(
        d for d in summary["differences"] if (d["variant"], d["against"], d["metric"]) == (variant, against, metric)
    )


def command(summary: dict[str, Any]) -> str:
    """What reproduces the numbers."""
    config, parts = summary["config"], [f"python -m research evaluate --suite {summary['suite']}"]
    parts += ["--variants " + " ".join(f'"{name}"' for name in summary["chosen"])] if summary.get("chosen") else []
    parts += [f"--seeds {summary['seeds']} --first-seed {summary['first_seed']}"]
    parts += [f'--word "{config["fixed_word"]}"'] + ([f'--words "{config["words"]}"'] if config["words"] else [])
    parts += [f"--steps {config['steps']}"] if config["steps"] != 20 else []
    parts += [f"--flow-model {config['flow_model']}"] if config["flow_model"] != "lucas_kanade" else []
    if summary["suite"] == "paper" and "other_discriminator" in config["sha256"]:
        parts += ["--other-discriminator FILE"]
    parts += ["--settings '" + ", ".join(f'"{k}": {_json(v)}' for k, v in config["settings"].items()).join("{}") + "'"]
    return " ".join(parts)


def _json(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def _head(summary: dict[str, Any]) -> str:
    digests = ", ".join(f"{name} `{digest[:12]}`" for name, digest in summary["config"]["sha256"].items())
    return (
        f"{summary['seeds']} prompts and seeds from {summary['first_seed']} on, the same in every variant, "
        f"{summary['config']['steps']} DDIM steps. Weights (SHA-256): {digests}.\n\n    {command(summary)}"
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _means(summary: dict[str, Any]) -> str:
    rows = []
    for name, variant in summary["variants"].items():
        means = variant["means"]
        adherence = sum(means[key] for key in ADHERENCE) / len(ADHERENCE)
        rows.append(
            [
                f"{name}: {variant['about']}",
                *(f"{means[key]:.4g}" for key in MEANS),
                f"{adherence:.1%}",
                str(variant["frozen"]),
            ]
        )
    header = ["mean", *(f"{key} ({BETTER[METRICS[key]]})" for key in MEANS), "prompt followed", "frozen videos"]
    return _table(header, rows)


def cell(found: dict[str, Any]) -> str:
    """Mean [low, high]; bold if better, italic if worse, or, where a metric should stay, if it changed."""
    text = f"{found['mean']:+.3g} [{found['low']:+.3g}, {found['high']:+.3g}]"
    if found["low"] <= 0 <= found["high"]:
        return text
    better = METRICS[found["metric"]] * found["mean"] > 0
    return f"**{text}**" if better else f"*{text}*"


def _differences(summary: dict[str, Any], pairs: list[tuple[str, str]], title: str, metrics: dict[str, int]) -> str:
    if not pairs:
        return ""
    rows = []
    for variant, against in pairs:
        found = [find(summary, variant, against, metric) for metric in metrics]
        rows.append([variant if against == "plain" else against, *(cell(one) for one in found)])
    header = ["", *(f"{key} ({BETTER[sign]})" for key, sign in metrics.items())]
    text = (
        f"**{title}**, mean [95 % paired bootstrap interval]; **bold** is better and *italic* worse (or changed, "
        "where it should stay), with an interval that leaves out 0."
    )
    return f"{text}\n\n{_table(header, rows)}"


def _cost(summary: dict[str, Any]) -> str:
    """Costs as ratios to a plain video, and the coherence gained per extra one's worth of operations."""
    rows = []
    for name, variant in summary["variants"].items():
        if variant.get("reference"):
            continue
        gained = find(summary, name, "plain", "coherence") if name != "plain" else None
        extra = variant.get("flops_ratio", 1.0) - 1
        per_flop = (
            "-"
            if gained is None or "flops_ratio" not in variant
            else "no extra cost"
            if extra < 0.005
            else (f"{gained['mean'] / extra:+.3g} [{gained['low'] / extra:+.3g}, {gained['high'] / extra:+.3g}]")
        )
        ratios = [
            f"{variant[key]:.2f}" if key in variant else "-" for key in ("flops_ratio", "time_ratio", "memory_ratio")
        ]
        rows.append([name, *ratios, per_flop])
    if len(rows) < 2:
        return ""
    return "**Cost** of a video, as a ratio to plain.\n\n" + _table(
        [
            "",
            "operations",
            "processor time",
            "peak memory besides the weights",
            "coherence gained per extra plain video's operations",
        ],
        rows,
    )


def _ahead(summary: dict[str, Any]) -> str:
    """Who beats the suite's subject, in words: by coherence with an interval, and by its mean per extra operation."""
    variants, subject = summary["variants"], _subject(summary)
    if subject not in variants or len(variants) < 3:
        return ""
    others = [name for name in variants if name not in ("plain", subject) and not variants[name].get("reference")]
    if not others:
        return ""
    found = {name: find(summary, subject, name, "coherence") for name in others}
    better, worse = (
        [name for name in others if test(found[name])] for test in (lambda d: d["high"] < 0, lambda d: d["low"] > 0)
    )
    undecided = [name for name in others if name not in better + worse]
    text = (
        f"More coherent than {SUBJECTS[subject]}, by an interval that leaves out 0: {_names(better)}. Less coherent: "
        f"{_names(worse)}. Not told apart: {_names(undecided)}."
    )
    ratio = variants[subject].get("flops_ratio")
    if ratio is None:
        return text
    counted = [name for name in others if "flops_ratio" in variants[name]]
    gains = {name: find(summary, name, "plain", "coherence")["mean"] for name in (subject, *counted)}
    extra = {name: max(variants[name]["flops_ratio"] - 1, 1e-9) for name in gains}
    mine = gains[subject] / extra[subject]
    ahead = [name for name in counted if gains[name] > 0 and gains[name] / extra[name] > mine]
    return f"{text} More coherence gained per extra operation than {SUBJECTS[subject]} (means): {_names(ahead)}."


def _names(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _findings(summary: dict[str, Any]) -> str:
    signs = {1: "+", -1: "-", 0: "0"}
    rows = [
        [
            f["text"],
            f"{f['variant']} minus {f['against']}, {f['metric']}",
            signs[f["sign"]],
            f["paper"] or "sign only",
            f"{f['mean']:+.3g} [{f['low']:+.3g}, {f['high']:+.3g}]",
            f["verdict"],
        ]
        for f in summary["findings"]
    ]
    return "**The paper's findings beside ours.**\n\n" + _table(
        ["finding", "measured as", "paper's sign", "paper's figure", "ours", ""], rows
    )


def draw(summary: dict[str, Any], path: Path) -> None:
    """Writes a picture: coherence and motion of every variant against plain, and coherence against cost.

    Raises:
        ImportError: matplotlib is not installed.
    """
    names = [name for name in summary["variants"] if name != "plain"]
    figure = new_figure(13, 1.6 + 0.32 * len(names), dpi=80)
    left, middle, right = figure.subplots(1, 3)
    for axes, metric, title in (
        (left, "coherence", "coherence minus plain (deviations)"),
        (middle, "flow_magnitude", "motion minus plain (px per frame)"),
    ):
        for row, name in enumerate(reversed(names)):
            one = find(summary, name, "plain", metric)
            axes.plot([one["low"], one["high"]], [row, row], color="C0")
            axes.plot(one["mean"], row, "o", color="C3" if name == _subject(summary) else "C0")
        axes.axvline(0, color="0.6", linewidth=1)
        axes.set_yticks(range(len(names)), list(reversed(names)), fontsize=8)
        axes.set_title(title, fontsize=9)
    middle.set_yticklabels([])
    rivals = [name for name in names if not summary["variants"][name].get("reference")]
    counted = all("flops_ratio" in summary["variants"][name] for name in rivals)
    for name in rivals:
        ratio = summary["variants"][name]["flops_ratio" if counted else "time_ratio"]
        gained = find(summary, name, "plain", "coherence")["mean"]
        right.plot(ratio, gained, "o", color="C3" if name == _subject(summary) else "C0")
        right.annotate(name, (ratio, gained), fontsize=7, xytext=(3, 3), textcoords="offset points")
    right.axhline(0, color="0.6", linewidth=1)
    right.set_xlabel(f"{'operations' if counted else 'processor time'}, ratio to plain", fontsize=8)
    right.set_title("coherence against cost", fontsize=9)
    save(figure, path)
