"""ComfyUI imported into the test process, for tests that look at tensors rather than at files.

    def test_something(comfy):                                  # fixture of conftest.py
        model, clip, vae = comfy.run("MotionPromptLoadDemoVideoModel") # defaults fill what is not given
        sampling = comfy.module("nodes.host.sampling")          # modules of this pack as ComfyUI loaded them

The pack's core is then `comfy.module("motionprompt_core...")`: ComfyUI loads a pack under a name of its own, so classes
of the plain `import motionprompt_core` are different objects.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from scripts.comfy_server import comfyui_version
from scripts.locate import comfyuis
from scripts.workflow import default_value


def chosen_comfyui() -> Path | None:
    """The ComfyUI that this process imports: the one in MOTIONPROMPT_INPROCESS, else the newest; None without any."""
    named = os.environ.get("MOTIONPROMPT_INPROCESS")
    return Path(named) if named else next(reversed(comfyuis()), None)


class InProcessComfy:
    """One ComfyUI in this process. Make it with `get`, which returns the same one every time.

    Attributes:
        path: the ComfyUI folder.
        version: for example "0.3.75".
        pack_module: this pack as ComfyUI loaded it.
    """

    _loaded: ClassVar[InProcessComfy | None] = None

    @classmethod
    def get(cls, path: Path, base_dir: Path) -> InProcessComfy:
        """Import ComfyUI from `path`, with models/ and output/ in `base_dir`; later calls return what is loaded.

        Raises:
            RuntimeError: another ComfyUI is loaded already.
        """
        if cls._loaded is None:
            cls._loaded = cls(path.resolve(), base_dir)
        elif cls._loaded.path != path.resolve():
            raise RuntimeError(f"this process already holds the ComfyUI in {cls._loaded.path}; it cannot load {path}")
        return cls._loaded

    def __init__(self, path: Path, base_dir: Path):
        self.path = path
        self.version = comfyui_version(path)
        self.pack_module: ModuleType | None = None
        self._packs: dict[Path, ModuleType] = {}
        self._loop = asyncio.new_event_loop()
        self._import(base_dir)

    def _import(self, base_dir: Path) -> None:
        for name in ("models", "input", "output", "temp", "user", "custom_nodes"):
            (base_dir / name).mkdir(parents=True, exist_ok=True)
        sys.path.insert(0, str(self.path))
        from comfy.cli_args import args  # pytest's own arguments are not parsed: comfy.options leaves that off

        args.cpu = True
        args.base_directory = str(base_dir)
        args.database_url = "sqlite:///:memory:"
        importlib.import_module("utils.extra_config")  # first, as main.py does: nodes.py puts comfy/utils.py in its way
        self.nodes = importlib.import_module("nodes")
        if not hasattr(self.nodes, "NODE_CLASS_MAPPINGS"):
            raise RuntimeError(f"`import nodes` gave {self.nodes.__path__}, not ComfyUI's: check sys.path")
        server = importlib.import_module("server")
        server.PromptServer(self._loop)  # nodes look for PromptServer.instance
        self._loop.run_until_complete(self.nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))

    def load_pack(self, path: Path) -> ModuleType:
        """Load a node pack the way ComfyUI does (once); returns its module.

        Raises:
            RuntimeError: ComfyUI rejected it; the reason is in the captured log.
        """
        path = Path(path).resolve()
        if path not in self._packs:
            if not self._loop.run_until_complete(self.nodes.load_custom_node(str(path))):
                raise RuntimeError(f"ComfyUI {self.version} did not load the pack {path}; see the captured log")
            self._packs[path] = sys.modules[str(path).replace(".", "_x_")]
        return self._packs[path]

    def module(self, name: str) -> ModuleType:
        """A module of this pack, for example "nodes.host.tokens" or "motionprompt_core.guidance.settings"."""
        assert self.pack_module is not None
        return importlib.import_module(f"{self.pack_module.__name__}.{name}")

    def node(self, node_id: str) -> Any:
        """A node class by its id, of this pack, of another one or of ComfyUI itself."""
        return self.nodes.NODE_CLASS_MAPPINGS[node_id]

    def run(self, node_id: str, **inputs: Any) -> tuple[Any, ...]:
        """Execute a node as ComfyUI does (in inference mode); widgets that are not given have their defaults.

        Returns:
            The node's outputs, as a tuple without the interface's part.
        """
        import torch

        cls = self.node(node_id)
        types = cls.INPUT_TYPES()
        for group in ("required", "optional"):
            for name, spec in types.get(group, {}).items():
                if name not in inputs and (value := default_value(list(spec))) is not None:
                    inputs[name] = value
        with torch.inference_mode():
            if hasattr(cls, "PREPARE_CLASS_CLONE"):  # V3
                output = cls.PREPARE_CLASS_CLONE(None).EXECUTE_NORMALIZED(**inputs)
                return tuple(output.args)
            result = getattr(cls(), cls.FUNCTION)(**inputs)
        return tuple(result["result"] if isinstance(result, dict) else result)
