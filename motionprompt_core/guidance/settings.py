"""What a guided run can be asked to do. Every reading that the paper leaves open is a field here.

References: Nam et al., "Optical-Flow Guided Prompt Optimization for Coherent Video Generation" (MotionPrompt,
arXiv 2411.15540); Um and Ye, "MinorityPrompt" (arXiv 2410.07838), the code base that it grew from.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

ADVERSARIAL_FORMS = ("saturating", "non_saturating")
TV_REDUCTIONS = ("mean", "sum")
OUTSIDE_WINDOW = ("plain", "tokens")
LOSS_ON = ("cond", "cfg")
LR_UNITS = ("absolute", "relative")
CHECKPOINTING = ("auto", "on", "off")
MODES = ("exact", "balanced", "fast")


@dataclass(frozen=True)
class GuidanceSettings:
    """The knobs of the prompt optimisation; the defaults are the paper's where it is known what they are.

    Attributes:
        strength: how hard the motion is pushed, in [0, 10]. It multiplies the learning rate; 0 leaves the picture
            exactly as the plain prompt makes it.
        iterations: optimiser iterations K per guided step, 1 to 100 (paper: 3). More hold the motion tighter and
            cost more; the paper found that 5 begins to freeze the video.
        window_start, window_end: the guided part of the schedule, as shares of its steps in [0, 1]. Motion is decided
            early. The paper guides t = 4..14 of 50, which is 0.08 to 0.30.
        every: guide every m-th step of the window, from its first on.
        learning_rate: size of Adam's move per iteration, > 0. MinorityPrompt uses 0.01 and 0.001; the paper does not
            tell.
        lr_unit: "absolute" (MinorityPrompt), or "relative": in units of the initial embedding's root mean square, so
            that one number suits text encoders of any scale.
        lr_decay: each later guided step learns less: lr * max(0, 1 - n * lr_decay) at the n-th (MinorityPrompt: 0).
        beta1, beta2: Adam's decay rates, in [0, 1).
        lambda_disc: weight l1 of the flow discriminator's loss: motion like that of real videos.
        lambda_tv: weight l2 of the flow's total variation: smooth motion; too much of it stills the video.
        lambda_reg: weight l3 of ||T - T0||^2: keeps the tokens, and so the picture, near the words that they began as.
        adversarial: "saturating", log(1 - phi) as in the paper, or "non_saturating", -log(phi), whose gradient does not
            vanish when the discriminator is sure that the flow is fake.
        tv_reduction: "mean" over the flow field (does not depend on the size of the frames) or "sum".
        reset_tokens: begin each guided step from T0. Off: the tokens carry over (MinorityPrompt).
        fresh_adam: a new Adam, without momentum, at each guided step (MinorityPrompt).
        outside_window: what steers the other steps: "plain", the prompt without the tokens (paper), or "tokens", the
            prompt with the tokens as they stand.
        pairs: frame pairs per iteration, at least 1. More give a steadier gradient and cost decoding and flow.
        max_gap: greatest distance in frames within a pair; 0 means any (paper: "random frame pairs").
        resample_pairs: draw new pairs at each iteration. Off: once per step.
        loss_on: "cond": the estimate x0 from the prompt alone (MinorityPrompt), or "cfg": mixed with the negative
            prompt as the picture will be; costs one more evaluation per step.
        grad_clip: greatest norm of the gradient over all tokens; 0 does not clip.
        checkpointing: "on" keeps only block inputs for the backward pass: about a seventh of the memory for one more
            forward pass. "auto" does so only if memory is short.
        preserve_motion: weight of a floor under the motion, so that it is not made real by being made slow: each pair's
            flow should be no slower than with the tokens as they began, at the same step. 0 is the paper, whose
            motion shrinks; above it a guided step costs one more evaluation, and an iteration one more decoding and
            flow, both without gradient.
        mode: "exact" is the paper's loop, K evaluations per guided step. "balanced" looks at the pairs of all K
            iterations in one evaluation and makes one larger move. "fast" does the same with the
            gradient of the denoiser's late layers only. docs/cost.md compares them.
        preserve_detail: weight of a floor under the detail, so that motion is not made smooth by blur: each frame
            should be no softer than with the tokens as they began, at the same step. 0 is the paper; above it a guided
            step costs one more evaluation (the same one as `preserve_motion`'s), and an iteration one more decoding.
    """

    strength: float = 1.0
    iterations: int = 3
    window_start: float = 0.08
    window_end: float = 0.30
    every: int = 1
    learning_rate: float = 1e-2
    lr_unit: Literal["absolute", "relative"] = "absolute"
    lr_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    lambda_disc: float = 1.0
    lambda_tv: float = 0.1
    lambda_reg: float = 0.1
    adversarial: Literal["saturating", "non_saturating"] = "saturating"
    tv_reduction: Literal["mean", "sum"] = "mean"
    reset_tokens: bool = False
    fresh_adam: bool = True
    outside_window: Literal["plain", "tokens"] = "plain"
    pairs: int = 1
    max_gap: int = 0
    resample_pairs: bool = True
    loss_on: Literal["cond", "cfg"] = "cond"
    grad_clip: float = 0.0
    checkpointing: Literal["auto", "on", "off"] = "auto"
    preserve_motion: float = 0.0
    mode: Literal["exact", "balanced", "fast"] = "exact"
    preserve_detail: float = 0.0

    def __post_init__(self) -> None:
        check_number("strength", self.strength, 0, 10, "0 switches the guidance off")
        check_integer("iterations", self.iterations, 1, 100, "the paper uses 3")
        check_number("window_start", self.window_start, 0, 1, "0 is the first sampling step")
        check_number("window_end", self.window_end, 0, 1, "1 is the end of sampling")
        if self.window_start > self.window_end:
            raise ValueError(
                f"The guided window is negative: it starts at {self.window_start} and ends at {self.window_end}. "
                f"Set window_end to {self.window_start} or more, or lower window_start."
            )
        check_integer("every", self.every, 1, 1000, "1 guides each step of the window")
        check_number(
            "learning_rate", self.learning_rate, 0, 10, "try 0.01; strength 0 switches the guidance off", open_low=True
        )
        check_number("lr_decay", self.lr_decay, 0, 1, "0 keeps the learning rate")
        check_number("beta1", self.beta1, 0, 1, "Adam's usual value is 0.9", open_high=True)
        check_number("beta2", self.beta2, 0, 1, "Adam's usual value is 0.999", open_high=True)
        for name in ("lambda_disc", "lambda_tv", "lambda_reg"):
            check_number(name, getattr(self, name), 0, 1e6, "0 leaves this loss out")
        check_choice("adversarial", self.adversarial, ADVERSARIAL_FORMS)
        check_choice("tv_reduction", self.tv_reduction, TV_REDUCTIONS)
        check_choice("outside_window", self.outside_window, OUTSIDE_WINDOW)
        check_choice("loss_on", self.loss_on, LOSS_ON)
        check_choice("lr_unit", self.lr_unit, LR_UNITS)
        check_choice("checkpointing", self.checkpointing, CHECKPOINTING)
        check_choice("mode", self.mode, MODES)
        check_integer("pairs", self.pairs, 1, 1000, "the paper's reading is 1")
        check_integer("max_gap", self.max_gap, 0, 100000, "0 lets a pair lie any distance apart")
        check_number("preserve_motion", self.preserve_motion, 0, 1e6, "0 lets the motion shrink")
        check_number("preserve_detail", self.preserve_detail, 0, 1e6, "0 lets the picture soften")
        check_number("grad_clip", self.grad_clip, 0, 1e9, "0 does not clip")

    @property
    def needs_unguided(self) -> bool:
        """A guided step looks at what the tokens as they began would have made as well."""
        return self.preserve_motion > 0 or self.preserve_detail > 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GuidanceSettings:
        """Settings from `to_dict`'s output; ValueError names any key that is not a setting."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"Unknown guidance settings: {', '.join(unknown)}. Remove them, or update MotionPrompt.")
        return cls(**values)


def check_number(
    name: str, value: float, low: float, high: float, remedy: str, open_low: bool = False, open_high: bool = False
) -> None:
    """Raise ValueError unless `value` is a finite number between `low` and `high`."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not low <= value <= high or (open_low and value == low) or (open_high and value == high):
        interval = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
        raise ValueError(f"{name} is {value!r}, but must be a number in {interval}: {remedy}.")


def check_integer(name: str, value: int, low: int, high: int, remedy: str) -> None:
    """Raise ValueError unless `value` is an integer from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, but must be a whole number from {low} to {high}: {remedy}.")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of: {', '.join(choices)}.")
