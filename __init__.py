"""MotionPrompt for ComfyUI: motion that looks real, by prompt tokens that learn while a video is sampled."""

from comfy_api.latest import ComfyExtension, io

from .nodes import NODES
from .nodes.host.renames import register_renames

WEB_DIRECTORY = "./web"


class MotionPromptExtension(ComfyExtension):
    async def on_load(self) -> None:
        await register_renames()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> MotionPromptExtension:
    return MotionPromptExtension()
