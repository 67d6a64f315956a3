"""MotionPrompt for ComfyUI: motion that looks real, by prompt tokens that learn while a video is sampled."""

from comfy_api.latest import ComfyExtension, io

from .nodes import NODES

WEB_DIRECTORY = "./web"


class MotionPromptExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> MotionPromptExtension:
    return MotionPromptExtension()
