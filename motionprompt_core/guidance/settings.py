"""What a guided run can be asked to do. Every reading that the paper leaves open is a setting here.

References: Nam et al., "Optical-Flow Guided Prompt Optimization for Coherent Video Generation" (MotionPrompt,
arXiv 2411.15540); Um and Ye, "MinorityPrompt" (arXiv 2410.07838), the code base that it grew from.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

Adversarial = Literal["saturating", "non_saturating", "wasserstein"]
OutsideWindow = Literal["plain", "tokens"]
LossOn = Literal["cond", "cfg"]
Checkpointing = Literal["auto", "on", "off"]
Mode = Literal["exact", "balanced", "fast"]
Guide = Literal["tokens", "estimate", "both"]
MODES: tuple[str, ...] = get_args(Mode)


# What menus offer: shares of the schedule (0.08 is the paper's), and weights, which act by their order of magnitude.
SHARES = tuple(sorted({0.08, *(step / 20 for step in range(21))}))
WEIGHTS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True)
class Knob:
    """What one setting does and what it may be; the nodes' inputs and the help pages are made from it.

    Attributes:
        text: what it does to the video and when to change it, for whoever sets it.
        low, high: the range of a number, whole if its default is. hint: what an error adds to the range.
        above: `low` itself is not allowed. below: `high` is not.
        offered: the numbers worth trying, for a menu; any other in range counts as well.
        step, shown: of a slider, and where it ends; for a number that no preset decides.
        choices: what a text may be.
    """

    text: str = ""
    low: float = 0
    high: float = 0
    hint: str = ""
    above: bool = False
    below: bool = False
    offered: tuple[float, ...] = ()
    step: float = 1
    shown: float = 1
    choices: tuple[str, ...] = ()

    def check(self, name: str, value: Any, default: Any) -> None:
        """Raise ValueError unless `value` is of `default`'s type and in range."""
        if isinstance(default, (bool, str)):
            choices = self.choices or (True, False)
            if type(value) is not type(default) or value not in choices:
                raise ValueError(f"{name} is {value!r}, but must be one of: {', '.join(map(str, choices))}.")
            return
        low, high, whole = self.low, self.high, isinstance(default, int)
        kind = int if whole else (int, float)
        fits = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
        if fits and low <= value <= high and not (self.above and value == low) and not (self.below and value == high):
            return
        if whole:
            raise ValueError(f"{name} is {value!r}, but must be a whole number from {low} to {high}: {self.hint}.")
        interval = f"{'(' if self.above else '['}{low}, {high}{')' if self.below else ']'}"
        raise ValueError(f"{name} is {value!r}, but must be a number in {interval}: {self.hint}.")


def _number(default: Any, low: float, high: float, hint: str, **more: Any) -> Any:
    return field(default=default, metadata={"knob": Knob(low=low, high=high, hint=hint, **more)})


def _choice(default: str, kind: Any) -> Any:
    return field(default=default, metadata={"knob": Knob(choices=get_args(kind))})


@dataclass(frozen=True)
class GuidanceSettings:
    """The knobs of the prompt optimisation; the defaults are the paper's where it is known what they are.

    Each is described by its `Knob` (`KNOBS`), which the nodes show; `python -m scripts.make_help_pages` writes the
    same text into the help pages. `presets.py` has sets of values that belong together.

    Raises:
        ValueError: a value is not in its range; the message names it, the range and a remedy.
    """

    strength: float = _number(1.0, 0, 10, "0 switches the guidance off", step=0.05, shown=3)
    mode: Mode = _choice("exact", Mode)
    # The paper guides tokens.
    guide: Guide = _choice("tokens", Guide)
    # The paper guides t = 4..14 of 50.
    start: float = _number(0.08, 0, 1, "0 is the first sampling step", offered=SHARES)
    stop: float = _number(0.30, 0, 1, "1 is the end of sampling", offered=SHARES)
    # 0 is the paper, whose motion shrinks.
    preserve_motion: float = _number(0.0, 0, 1e6, "0 lets the motion shrink", step=0.1, shown=10)
    preserve_detail: float = _number(
        0.0, 0, 1e6, "0 lets the picture soften", offered=(0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
    )
    checkpointing: Checkpointing = _choice("auto", Checkpointing)
    iterations: int = _number(3, 1, 100, "the paper uses 3", offered=tuple(range(1, 11)))
    # MinorityPrompt uses 0.01 and 0.001; the paper does not tell.
    learning_rate: float = _number(
        1e-2,
        0,
        10,
        "try 0.01; strength 0 switches the guidance off",
        above=True,
        offered=(0.001, 0.002, 0.003, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0),
    )
    lambda_disc: float = _number(1.0, 0, 1e6, "0 leaves this loss out", offered=WEIGHTS)
    lambda_tv: float = _number(0.1, 0, 1e6, "0 leaves this loss out", offered=WEIGHTS)
    lambda_reg: float = _number(0.1, 0, 1e6, "0 leaves this loss out", offered=WEIGHTS)
    adversarial: Adversarial = _choice("saturating", Adversarial)
    pairs: int = _number(1, 1, 1000, "the paper's reading is 1", offered=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64))
    max_gap: int = _number(
        0, 0, 100000, "0 lets a pair lie any distance apart", offered=(0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    )
    every: int = _number(1, 1, 1000, "1 guides each step of the window", offered=(1, 2, 3, 4, 5))
    # MinorityPrompt judges the prompt's estimate alone.
    loss_on: LossOn = _choice("cond", LossOn)
    outside_window: OutsideWindow = _choice("plain", OutsideWindow)
    fresh_adam: bool = field(default=True, metadata={"knob": Knob()})
    beta2: float = _number(
        0.999,
        0,
        1,
        "Adam's usual value is 0.999",
        below=True,
        offered=(0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999),
    )
    grad_clip: float = _number(0.0, 0, 1e9, "0 does not clip", offered=(0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))
    # Where they came from, for the report; no setting.
    preset: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name, knob in KNOBS.items():
            knob.check(name, getattr(self, name), DEFAULTS[name])
        if self.start > self.stop:
            raise ValueError(
                f"The guided window is negative: it starts at {self.start} and stops at {self.stop}. "
                f"Set stop to {self.start} or more, or lower start."
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GuidanceSettings:
        """Settings from `to_dict`'s output; ValueError names any key that is not a setting."""
        unknown = sorted(set(values) - {item.name for item in fields(cls)})
        if unknown:
            raise ValueError(f"Unknown guidance settings: {', '.join(unknown)}. Remove them, or update MotionPrompt.")
        return cls(**values)


# What each setting does to the video and when to change it, for whoever sets it.
TEXTS: dict[str, str] = {
    "strength": "How hard the motion is pushed towards the real: it multiplies learning_rate. 0 is off: exactly the "
    "picture of the plain prompt. Raise it if the motion still jitters, lower it if the picture drifts from the "
    "prompt.",
    "mode": "How much is computed for the guidance. exact: the paper's way, one evaluation of the model per "
    "iteration. balanced: one evaluation per guided step serves all iterations, for about half of the extra time. "
    "fast: the same with a coarser gradient, for the least time and memory. What it will cost is said before "
    "sampling.",
    "guide": "What is guided. tokens: the prompt's learnable tokens, as in the paper. estimate: the estimated video "
    "itself, steadied along its own motion at steps that it finds by itself, without gradients; strength up to 1 is "
    "the share, and only strength and the flow model count. both: one and the other.",
    "start": "Where in the schedule guidance begins, as a share of the steps. The very first steps are too noisy to "
    "see motion in.",
    "stop": "Where guidance ends, as a share of the steps. Motion is decided early; later steps cost time and change "
    "detail. At start nothing is guided, and it may not be below.",
    "preserve_motion": "Keeps the motion from being slowed down: a penalty for every frame pair that moves less than "
    "with the initial words. Raise it if guided videos come out too still; 0 is off and saves one evaluation per "
    "guided step.",
    "preserve_detail": "Keeps the picture from being softened: a penalty for every frame that has less fine detail "
    "than with the initial words. Raise it if guided videos come out blurred; 0 is off and saves one evaluation per "
    "guided step, which it shares with preserve_motion.",
    "checkpointing": "On: a seventh of the memory for a third more time. Auto: only if memory is short.",
    "iterations": "Optimiser iterations per guided step. More push harder and cost more time; 5 and more begin to "
    "still the video.",
    "learning_rate": "How far an iteration moves the tokens, in the units of their embedding. Try 0.001 to 0.03 with "
    "CLIP; the embeddings of T5 (Wan, LTX-Video) are larger and need more. strength multiplies it.",
    "lambda_disc": "Weight of the discriminator: motion like that of real videos.",
    "lambda_tv": "Weight of smoothness (total variation of the flow, a mean over its pixels). Raise it against "
    "warping and flicker; too much stills the video.",
    "lambda_reg": "Weight that keeps the tokens near their initial words. Raise it if colours or content change too "
    "much.",
    "adversarial": "The paper's saturating loss, log(1 - phi), is gentle where the discriminator is sure that the "
    "motion is fake; non_saturating, -log(phi), pushes hardest there. wasserstein, minus the score, pushes alike "
    "everywhere: for a discriminator whose scores tell the better of two versions of a clip, but not one clip from "
    "another, as the general one's.",
    "pairs": "Frame pairs looked at per iteration. More steady the motion of the whole video and cost decoding time "
    "and memory.",
    "max_gap": "Greatest distance between the frames of a pair; 0 is any. 1 looks at neighbouring frames only, as "
    "discriminators are usually trained.",
    "every": "Guide every m-th step of the window, from its first on: 2 halves the cost.",
    "loss_on": "Judge the estimate from the prompt alone (cond), or mixed with the negative prompt as the picture "
    "will be (cfg; one more evaluation per guided step).",
    "outside_window": "Steps outside the window follow the plain prompt, as in the paper, or the prompt with the "
    "tokens as they stand: stronger, but details may follow the tokens.",
    "fresh_adam": "Begin each guided step with a new Adam, without momentum.",
    "beta2": "Adam's memory of gradient sizes. Lower it if single gradients are far too long.",
    "grad_clip": "Greatest norm of the gradient over all tokens; 0 does not clip.",
}
KNOBS: dict[str, Knob] = {
    item.name: replace(item.metadata["knob"], text=TEXTS[item.name])
    for item in fields(GuidanceSettings)
    if "knob" in item.metadata
}
DEFAULTS: dict[str, Any] = {item.name: item.default for item in fields(GuidanceSettings) if item.name in KNOBS}
