"""Load Video Checkpoint, Video FPS, Rescale CFG (Video), DynamiCrafter Image to Video."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host import folders
from .host.checks import check_number
from .host.schema import make, schema
from .host.status import status_line
from .host.video_unet.dynamicrafter import VARIANTS
from .host.video_unet.guidance import rescaled_cfg
from .host.video_unet.image import animate, with_fps
from .host.video_unet.loading import load_video_checkpoint

OWN = "(the file's own)"


class LoadVideoCheckpoint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptLoadVideoCheckpoint",
            display_name="Load Video Checkpoint",
            description="Loads LaVie, VideoCrafter2 or DynamiCrafter with all its temporal layers, for ComfyUI's own "
            "samplers. Their frames are a batch: Empty Latent Image with a batch of 16. ComfyUI's own loaders take "
            "these files for image models without a word, and leave the motion out.",
            search_aliases=["motionprompt", "lavie", "videocrafter", "videocrafter2", "dynamicrafter", "text to video"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                make(
                    io.Combo.Input,
                    "name",
                    options=folders.video_files(),
                    tooltip="A .safetensors file from models/checkpoints or models/diffusion_models. For an official "
                    ".pt or .ckpt file: python -m motionprompt_tools convert FILE.",
                ),
                make(
                    io.Combo.Input,
                    "variant",
                    options=["auto", *VARIANTS],
                    tooltip="Which DynamiCrafter it is, for a file that does not tell: 512, 512-interp (between two "
                    "images), 1024 or 256. A wrong one gives a wrong noise schedule. LaVie and VideoCrafter2 need no "
                    "choice.",
                ),
                make(
                    io.Combo.Input,
                    "encoders",
                    options=[OWN, *folders.checkpoint_files()],
                    tooltip="Where text encoder and VAE come from: for LaVie any Stable Diffusion 1.x checkpoint; for "
                    "VideoCrafter2 and DynamiCrafter the file itself, or Stable Diffusion 2.1 if it has none.",
                ),
            ],
            outputs=[
                make(io.Model.Output, display_name="model", tooltip="The video model: 16 frames as a batch."),
                make(io.Clip.Output, display_name="clip", tooltip="Its text encoder; nothing if there is none."),
                make(io.Vae.Output, display_name="vae", tooltip="Its autoencoder; nothing if there is none."),
                make(
                    io.ClipVision.Output,
                    display_name="clip_vision",
                    tooltip="DynamiCrafter's image encoder; nothing if the file has none.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str, variant: str, encoders: str) -> Any:
        paths = [folders.find_video(each) for each in (name, encoders) if each != OWN]
        return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths], variant

    @classmethod
    def execute(cls, name: str, variant: str, encoders: str) -> io.NodeOutput:
        others = None if encoders == OWN else folders.find_video(encoders)
        loaded = load_video_checkpoint(folders.find_video(name), variant, others)
        show = status_line(cls)
        if show is not None:
            show("\n".join(loaded.lines))
        return io.NodeOutput(loaded.model, loaded.clip, loaded.vae, loaded.clip_vision)


class VideoFPS(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptVideoFPS",
            display_name="Video FPS",
            description="Tells VideoCrafter2 and DynamiCrafter the frame rate to make a video for. A lower one means "
            "more motion from frame to frame. It does not change at which rate the video is saved. LaVie has none.",
            search_aliases=["motionprompt", "frame rate", "fps conditioning", "frame stride"],
            inputs=[
                make(io.Conditioning.Input, "positive", tooltip="The prompt."),
                make(io.Conditioning.Input, "negative", tooltip="The negative prompt; both need the same rate."),
                make(
                    io.Float.Input,
                    "fps",
                    default=24.0,
                    min=1.0,
                    max=60.0,
                    step=1.0,
                    tooltip="VideoCrafter2: 8 to 30, its authors take 28. DynamiCrafter 512: 15 to 30; 512-interp: 5 "
                    "to 30; 1024: 5 to 15. For DynamiCrafter 256 it is a stride between frames of 1 to 6, where more "
                    "is more motion.",
                ),
            ],
            outputs=[
                make(io.Conditioning.Output, display_name="positive", tooltip="The prompt with the rate."),
                make(io.Conditioning.Output, display_name="negative", tooltip="The negative prompt with the rate."),
            ],
        )

    @classmethod
    def execute(cls, positive: Any, negative: Any, fps: float) -> io.NodeOutput:
        check_number("Video FPS", "fps", fps, 1, 60)
        return io.NodeOutput(with_fps(positive, fps), with_fps(negative, fps))


class RescaleVideoCFG(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptRescaleVideoCFG",
            display_name="Rescale CFG (Video)",
            description="Keeps a high CFG from over-exposing a video whose frames are a batch: the contrast of the "
            "whole clip is brought back to that of the prompt's own prediction. ComfyUI's RescaleCFG does so for each "
            "frame by itself, and for another noise schedule than VideoCrafter2's and DynamiCrafter's.",
            search_aliases=["motionprompt", "rescale cfg", "guidance rescale"],
            inputs=[
                make(io.Model.Input, "model", tooltip="A model from Load Video Checkpoint."),
                make(
                    io.Float.Input,
                    "multiplier",
                    default=0.7,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of it: 0.7 is what DynamiCrafter's authors use, 0 changes nothing.",
                ),
            ],
            outputs=[make(io.Model.Output, display_name="model", tooltip="The same model with rescaled guidance.")],
        )

    @classmethod
    def execute(cls, model: Any, multiplier: float) -> io.NodeOutput:
        check_number("Rescale CFG (Video)", "multiplier", multiplier, 0, 1)
        return io.NodeOutput(rescaled_cfg(model, multiplier))


class DynamiCrafterImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptDynamiCrafterImageToVideo",
            display_name="DynamiCrafter Image to Video",
            description="Puts the image to animate into both prompts for DynamiCrafter. With a second image "
            "(512-interp) the video goes from one to the other; the same image twice makes a loop, whose last frame to "
            "leave out.",
            search_aliases=["motionprompt", "image to video", "i2v", "dynamicrafter", "interpolation", "loop"],
            inputs=[
                make(io.Conditioning.Input, "positive", tooltip="The prompt: what the image shows and how it moves."),
                make(io.Conditioning.Input, "negative", tooltip="The negative prompt; the authors leave it empty."),
                make(io.Vae.Input, "vae", tooltip="The VAE of Load Video Checkpoint."),
                make(
                    io.ClipVision.Input,
                    "clip_vision",
                    tooltip="The loader's, or CLIP-ViT-H-14-laion2B-s32B-b79K from Load CLIP Vision.",
                ),
                make(io.Image.Input, "image", tooltip="The first frame; scaled and cropped to width and height."),
                make(
                    io.Int.Input,
                    "width",
                    default=512,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="Pixels: 512 for the 512 models, 1024 for 1024, 256 for 256.",
                ),
                make(
                    io.Int.Input,
                    "height",
                    default=320,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="Pixels: 320 for the 512 models, 576 for 1024, 256 for 256.",
                ),
                make(
                    io.Int.Input,
                    "frames",
                    default=16,
                    min=2,
                    max=256,
                    tooltip="16: for any other number the model reads its image in a way that it was not trained on.",
                ),
                make(
                    io.Float.Input,
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=60.0,
                    step=1.0,
                    tooltip="The rate to make the video for; lower is more motion. 0 takes what suits the model: 24, "
                    "for 512-interp 5, for 1024 10. 256 has a stride of 3, where more is more motion.",
                ),
                make(
                    io.Image.Input,
                    "end_image",
                    optional=True,
                    tooltip="The last frame, for the 512-interp model only. The first image again makes a loop.",
                ),
            ],
            outputs=[
                make(io.Conditioning.Output, display_name="positive", tooltip="The prompt with the image."),
                make(
                    io.Conditioning.Output,
                    display_name="negative",
                    tooltip="The negative prompt with the image's latent and a grey picture for its content, as in "
                    "training.",
                ),
                make(io.Latent.Output, display_name="latent", tooltip="Empty frames of the right size and number."),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: Any,
        negative: Any,
        vae: Any,
        clip_vision: Any,
        image: Any,
        width: int,
        height: int,
        frames: int,
        fps: float,
        end_image: Any = None,
    ) -> io.NodeOutput:
        check_number("DynamiCrafter Image to Video", "fps", fps, 0, 60)
        prompts = animate(positive, negative, vae, clip_vision, image, end_image, frames, (width, height), fps)
        return io.NodeOutput(*prompts)
