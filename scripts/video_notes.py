"""The notes in the workflows of scripts/video_workflows.py: files, licences, frames, frame rates."""

from __future__ import annotations

from .workflow_notes import JUDGE_NOTE, SLIDERS_NOTE

_CONVERT = """The official file is a pickle, which ComfyUI should not open. In the pack's folder, with ComfyUI's Python:

`python -m motionprompt_tools convert {file}`

writes a .safetensors file of half the size; rename it to *{name}* and put it into `models/checkpoints`."""

_CORE = """**Load it with the green loader.** ComfyUI's own loaders take this file for an image model without a word, \
and leave all motion layers out."""

_FRAMES = """The model was trained on 16 frames, as a batch, and its video is saved at 8 frames a second. More frames \
run, but get worse; 16 at a time through *Context Windows* (dim 0) is better (ComfyUI 0.8 and newer)."""


def _note(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *parts, JUDGE_NOTE, SLIDERS_NOTE])


LAVIE = _note(
    "LaVie with MotionPrompt",
    "Needs *lavie_base.pt* (3.6 GB) of Hugging Face's *Vchitect/LaVie*, and any Stable Diffusion 1.x checkpoint for "
    "its text encoder and VAE.",
    _CONVERT.format(file="lavie_base.pt", name="lavie_base.safetensors"),
    _CORE,
    "Licence: its page calls the weights open for research and free commercial use, and asks for an application for a "
    "commercial licence. Read it.",
    _FRAMES,
    "*euler_ancestral* with *ddim_uniform* is the authors' sampler.",
)

VIDEOCRAFTER2 = _note(
    "VideoCrafter2 with MotionPrompt",
    "Needs *model.ckpt* (7.4 GB) of Hugging Face's *VideoCrafter/VideoCrafter2*; text encoder and VAE are in it.",
    _CONVERT.format(file="model.ckpt", name="videocrafter2.safetensors"),
    _CORE,
    "Licence: the file is under Apache 2.0, its page speaks of research and non-commercial use only. Read both.",
    _FRAMES,
    "**Video FPS** says what the video should look like, not how it is saved: 28 is the authors', a lower rate means "
    "more motion from frame to frame.",
)

_DYNAMICRAFTER = (
    _CORE,
    "Licence: Apache 2.0, with a disclaimer on its page. An official .ckpt file works too, after "
    "`python -m motionprompt_tools convert model.ckpt`.",
    "**16 frames, no more and no fewer**: with any other number the model reads its image in a way that it was not "
    "trained on. The video is saved at 8 frames a second.",
)

DYNAMICRAFTER = _note(
    "An image in motion: DynamiCrafter with MotionPrompt",
    "Needs *dynamicrafter_1024_v1_bf16.safetensors* (5.2 GB), with text encoder, VAE and image encoder in it. For the "
    "512 model (a fourth of the time) set *variant* to 512 and the size to 512 x 320.",
    *_DYNAMICRAFTER,
    "*fps* 0 takes what suits the model; a lower rate means more motion. *Rescale CFG (Video)* is the authors', too.",
)

BETWEEN = _note(
    "From one image to another: DynamiCrafter with MotionPrompt",
    "Needs *dynamicrafter_512_interp_v1_bf16.safetensors* (5.2 GB), with text encoder, VAE and image encoder in it.",
    *_DYNAMICRAFTER,
    "**For a loop** load the same image twice, and leave out the last frame of the result (ImageFromBatch, length 15). "
    "The prompt says what happens between the images.",
)
