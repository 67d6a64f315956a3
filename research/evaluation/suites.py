"""Which variants a suite compares, and what the paper says about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from . import baselines, estimate
from .variants import MOTIONPROMPT, PLAIN, RENDERED, UNOPTIMISED, Variant, fixed_word

Suite = Literal["quick", "paper", "baselines", "modes", "estimate"]
# The variant that a suite is about, if it is not "motionprompt".
SUBJECT: dict[str, str] = {"estimate": "estimate"}
SEEDS: dict[str, int] = {"quick": 12, "paper": 64, "baselines": 64, "modes": 64, "estimate": 64}


@dataclass(frozen=True)
class Finding:
    """Something the paper reports: the sign of `metric` in `variant` minus `against`.

    Attributes:
        text: the finding. sign: +1 the variant has more of the metric, -1 less, 0 no consistent difference.
        paper: the figure, where one is known.
    """

    text: str
    variant: str
    against: str
    metric: str
    sign: int
    paper: str = ""


FINDINGS = (
    Finding("guidance smooths the motion", "motionprompt", "plain", "motion_smoothness", 1, "MS .9578 -> .9599"),
    Finding("guidance lowers flicker", "motionprompt", "plain", "temporal_flickering", 1, "TF .9228 -> .9258"),
    Finding(
        "guidance shrinks the motion",
        "motionprompt",
        "plain",
        "flow_magnitude",
        -1,
        "dynamic degree falls slightly",
    ),
    Finding(
        "the discriminator adds coherence",
        "no discriminator",
        "motionprompt",
        "coherence",
        -1,
        "SC .9528 -> .9504",
    ),
    Finding(
        "total variation adds smoothness",
        "no TV",
        "motionprompt",
        "motion_smoothness",
        -1,
        "MS .9648 -> .9658",
    ),
    Finding(
        "total variation costs motion",
        "no TV",
        "motionprompt",
        "flow_magnitude",
        1,
        "DD .4232 -> .4072",
    ),
    Finding("K = 1 is too weak", "K = 1", "motionprompt", "coherence", -1),
    Finding("K = 5 costs motion", "K = 5", "motionprompt", "flow_magnitude", -1),
    Finding("3 tokens are slightly more coherent", "3 tokens", "motionprompt", "coherence", 1),
    Finding("3 tokens cost motion", "3 tokens", "motionprompt", "flow_magnitude", -1),
    Finding("tokens in front gain nothing", "tokens in front", "motionprompt", "coherence", 0),
    Finding('"the" gains nothing over "authentic"', 'word "the"', 'word "authentic"', "coherence", 0),
    Finding("another model's discriminator still helps", "other discriminator", "plain", "coherence", 1),
)

PAPER = (
    Variant("no discriminator", "lambda_disc 0", settings={"lambda_disc": 0.0}),
    Variant("no TV", "lambda_tv 0", settings={"lambda_tv": 0.0}),
    Variant("no regulariser", "lambda_reg 0", settings={"lambda_reg": 0.0}),
    Variant("regulariser", "lambda_reg 0.1, the nodes' default", settings={"lambda_reg": 0.1}),
    Variant("K = 1", "one iteration per guided step", settings={"iterations": 1}),
    Variant("K = 3", "three", settings={"iterations": 3}),
    Variant("K = 5", "five", settings={"iterations": 5}),
    Variant("early window", "steps 0 to 10 of 50", settings={"start": 0.0, "stop": 0.22}),
    Variant("paper's window", "steps 4 to 14 of 50", settings={"start": 0.08, "stop": 0.30}),
    Variant("late window", "steps 20 to 30 of 50", settings={"start": 0.40, "stop": 0.62}),
    Variant("3 tokens", "the words three times", repeat=3),
    Variant("tokens in front", "before the prompt", placement="front"),
    Variant('word "authentic"', 'initial word "authentic"', words="authentic"),
    Variant('word "the"', 'initial word "the"', words="the"),
)
OTHER_DISCRIMINATOR = Variant("other discriminator", "guided by the second discriminator", discriminator="other")
PRESERVE = (
    Variant("preserve motion", "MotionPrompt with preserve_motion 5", settings={"preserve_motion": 5.0}),
    Variant("no preserve_detail", "MotionPrompt with preserve_detail 0", settings={"preserve_detail": 0.0}),
)

MODES = (
    Variant("balanced", "one evaluation per guided step", settings={"mode": "balanced"}),
    Variant("fast", "the same with the gradient of the late layers", settings={"mode": "fast"}),
    Variant("balanced, every 2nd step", "half of the guided steps", settings={"mode": "balanced", "every": 2}),
)


def suite_variants(suite: Suite, word: str, other_discriminator: bool = False) -> list[Variant]:
    """The variants of a suite, the plain sampler first.

    Args:
        word: the fixed word that the prompt alone is helped with.
        other_discriminator: there is one, so that the paper's Table 4 can be repeated.
    """
    controls = [PLAIN, MOTIONPROMPT, RENDERED, UNOPTIMISED, fixed_word(word)]
    paper = [*PAPER, *PRESERVE, *([OTHER_DISCRIMINATOR] if other_discriminator else [])]
    if suite == "modes":
        return [PLAIN, MOTIONPROMPT, RENDERED, *MODES]
    if suite == "estimate":
        return [PLAIN, MOTIONPROMPT, RENDERED, *estimate.VARIANTS, *baselines.VARIANTS]
    if suite == "quick":
        return controls
    if suite == "paper":
        return [*controls, *paper]
    return [*controls, *PRESERVE, *baselines.VARIANTS]
