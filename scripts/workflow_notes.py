"""The notes in the workflows of scripts/make_workflows.py: what to download, and which three sliders matter."""

from __future__ import annotations

_FILES = """Needs the custom nodes **AnimateDiff-Evolved** (ComfyUI-Manager: *comfyui-animatediff-evolved*) and these \
files:

- `models/checkpoints`: any Stable Diffusion 1.5 checkpoint, for example *v1-5-pruned-emaonly-fp16.safetensors*
- `models/animatediff_models`: {motion}"""

_MOTION = "a motion model, v1, v2 or v3, for example *mm_sd15_v2.safetensors*"

JUDGE_NOTE = """**The discriminator is the general one** that comes with the pack: it knows faults such as jitter \
and tearing from real footage, not AnimateDiff, and is **for research only** (its *info* says what it was trained on). \
One of your own may be better: workflow *train_discriminator*. Without any, smoothness (*lambda_tv*) guides alone."""

_STRENGTH = "- **strength**: how hard the motion is pushed; 0 is exactly the video of the plain prompt"
_STOP = "- **stop**: how long guidance lasts; at *preset* it is 0.3; later steps change detail"
SLIDERS_NOTE = f"""**The three sliders that matter** (green node)

{_STRENGTH}
{_STOP}
- **preserve_motion**: raise it if guided videos move too little

The rest is the preset's; *MotionPrompt Settings* changes single numbers of it."""

_COST = """Guided steps cost several plain ones in time, and memory for a backward pass: *checkpointing* keeps that \
down."""


def _note(title: str, *parts: str, motion: str = _MOTION) -> str:
    return "\n\n".join([f"# {title}", _FILES.format(motion=motion), *parts])


ANIMATEDIFF = _note("AnimateDiff with MotionPrompt", JUDGE_NOTE, SLIDERS_NOTE, _COST)

LONG_VIDEO = _note(
    "A long video",
    """48 frames pass through a window of 16 that slides along (*Context Options*). Set the number of frames in *Empty \
Latent Image*; time and memory for a guided step grow with it.""",
    f"""**The three sliders that matter** (green node)

{_STRENGTH}
{_STOP}
- **max_gap** of *MotionPrompt Settings*: the greatest distance between two frames that are compared. Here it is the \
overlap of the windows, 4: frames far apart have no motion in common. 1 compares neighbours only""",
    JUDGE_NOTE,
    _COST,
)

CONTROLNET = _note(
    "Outlines of your own video",
    """... and `models/controlnet`: a ControlNet for Stable Diffusion 1.5, for example \
*control_v11p_sd15_canny_fp16.safetensors*.

Choose a video in *Your video*: its first 16 frames give the outlines. They hold the shapes; MotionPrompt works on \
what they leave open, such as textures that crawl. The learnable tokens pass through *Apply ControlNet* unharmed.""",
    f"""**The three sliders that matter**

{_STRENGTH}
{_STOP}
- **strength** of *Apply ControlNet*: how closely the outlines are kept; at 1 they leave guidance little to move""",
    JUDGE_NOTE,
    _COST,
)

FREEINIT = _note(
    "FreeInit and MotionPrompt",
    """FreeInit samples the video, keeps the slow part of its noise and samples again: steadier, at twice the time. \
Each pass is guided afresh, with new tokens; the report has both.""",
    f"""**The three sliders that matter**

{_STRENGTH}
- **iterations** of *FreeInit Iteration Options*: passes; 1 is without FreeInit
- **stop**: how long guidance lasts in each pass; at *preset* it is 0.3""",
    JUDGE_NOTE,
    _COST,
)

LIGHTNING = _note(
    "Eight steps with AnimateDiff-Lightning",
    """The window is a share of the steps, so it scales: of these 8 steps the preset guides the second and the third; \
of 4 steps the second. **cfg is 1**, as distilled models need: the negative prompt counts for nothing.

An LCM motion model works the same way: sampler *lcm*, scheduler *sgm_uniform*, cfg 1 to 2, and beta schedule *lcm* \
in *Use Evolved Sampling*.""",
    f"""**The three sliders that matter** (green node)

{_STRENGTH}
- **iterations** of *MotionPrompt Settings*: with few guided steps, raise these rather than the window
- **stop**: 0.4 guides one step more; after that the picture is settled""",
    JUDGE_NOTE,
    motion="*animatediff_lightning_8step_comfyui.safetensors* (or the one for 4 steps: set *steps* to 4)",
)

COMPARE = """# What does a slider do?

Press **Run**. The same seed and prompt are sampled five times with the demo model: once plain, and with two values of \
one slider (columns) times two of another (rows). Change the green numbers below, press Run again: only what \
changed is computed anew.

To compare other sliders: drag the number's link to another input of the four samplers. The three sliders that matter \
most are **strength**, **stop** and **preserve_motion**; the rest is on *MotionPrompt Settings*.

Nothing to download."""

MEASURE = """# Measure a video that you have

Choose a video in *Your video*, press **Run**: the table says how much it flickers, how smoothly and how much it \
moves, how sharp it is. To compare, load a second one the same way into *compare_with*: same seed, without the guidance.

**The three settings that matter**

- **length** of *First 48 frames*: how much of the video is measured
- **fps** comes from the file; only *dynamic_degree* depends on it
- **name** of *Load Optical Flow Model*: a model that did not guide the video judges more fairly

Nothing to download. One video says little: compare several seeds."""

STEADY_MOTION = """# Steady Motion

Press **Run**: the same seed twice, left plain, right with the green node between model and sampler. What it corrected \
stands on the node when the run is over.

In a workflow of your own: put it between the **model**, after LoRAs and shift, and whatever takes it to sample, and \
connect the workflow's **vae**. Two samplers in a row (Wan 2.2): one node on each model. That is all.

- **strength**: 0 is exactly the plain video

Nothing to download. For large models a tiny autoencoder in `models/vae_approx` saves most of the time; its help \
has the names."""
