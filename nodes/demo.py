"""Load Demo Video Model."""

from __future__ import annotations

from comfy_api.latest import io

from .host import folders
from .host.demo_model import load_demo
from .host.schema import make, schema

WEIGHTS = "demo_video_model.safetensors"


class LoadDemoVideoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MotionPromptLoadDemoVideoModel",
            display_name="Load Demo Video Model",
            description="A tiny text-to-video model that comes with the pack: 16 frames of 128 px of a sprite moving "
            "over a ground. It needs no download and runs on a CPU, so that MotionPrompt can be tried anywhere. "
            "Prompts look like: a red star moving left on grass. Shapes: circle, square, triangle, star. Colours: red, "
            "green, blue, yellow, purple, orange. Motion: moving left, right, up, down, or standing still. Grounds: on "
            "sand, on grass, on snow, at night.",
            search_aliases=["motionprompt demo", "sprite world", "tiny video model"],
            inputs=[],
            outputs=[
                make(
                    io.Model.Output,
                    display_name="model",
                    tooltip="The video model. Give it an Empty Latent Image of 128 x 128 with a batch of 16: the "
                    "batch is the frames, 16 at most.",
                ),
                make(
                    io.Clip.Output,
                    display_name="clip",
                    tooltip="Its text encoder, for MotionPrompt Conditioning and CLIP Text Encode.",
                ),
                make(
                    io.Vae.Output,
                    display_name="vae",
                    tooltip="Its autoencoder, for VAE Decode and for the guidance.",
                ),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_demo(folders.find(WEIGHTS)))
