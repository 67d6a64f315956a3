"""A newer ComfyUI that lends weights on the CPU, in a process of its own; `worker` below speaks to it.

ComfyUI's model management, patchers and layers are the real ones. They are told that "cpu:0" is an accelerator, other
than "cpu", on which tensors really are: so every weight has a way to go, through aimdo.py's stand-in or the buffers of
two streams.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[3]
# Loss in fp32 has 7 digits, of which a smaller step would leave too few.
EPSILON = 8e-3
# The least that shows everything.
FRAMES, SAMPLING = 2, {"steps": 2, "cfg": 1.0}


class World:
    """ComfyUI with dynamic VRAM, and the tests' tiny models in it.

    Args:
        comfyui: its folder. base: for its models and output.
    """

    def __init__(self, comfyui: Path, base: Path):
        from . import aimdo

        aimdo.install()
        self.vram = aimdo.VRAM
        from scripts.locate import animatediff

        from ..inprocess import InProcessComfy
        from ..tiny import Tiny

        self.comfy = InProcessComfy.get(comfyui, base)
        _pretend(aimdo.Stream)
        self.comfy.pack_module = self.comfy.load_pack(ROOT)
        for pack in sorted((Path(__file__).parents[1] / "packs").glob("*/__init__.py")):
            self.comfy.load_pack(pack.parent)
        self.comfy.load_pack(animatediff(comfyui))
        self.tiny, self.node = Tiny(self.comfy), self.comfy.node("TinyVideoModel")()
        self.classic = self.tiny.model, self.tiny.clip, self.tiny.vae
        self.made: dict[Any, tuple[Any, Any, Any]] = {}
        self.references: dict[Any, torch.Tensor] = {}

    def _use(self, models: tuple[Any, Any, Any]) -> None:
        self.tiny.model, self.tiny.clip, self.tiny.vae = models
        self.tiny.learnable = self.tiny.prompt()
        self.tiny.plain, self.tiny.negative = self.tiny.encode("a (red:1.2) ball rolling"), self.tiny.encode("blurry")

    def dynamic(self, lent: str, file: str, compute: str) -> tuple[Any, Any, Any]:
        """The tiny models anew, of which those named have their weights lent."""
        from comfy.model_patcher import ModelPatcherDynamic

        with torch.inference_mode():
            model, clip, vae = self.node.make(compute, 0)
            if file:
                weights = self.node.make(file, 0)[0].model.diffusion_model.state_dict()
                model.model.diffusion_model.load_state_dict(weights, assign=True)
            model = ModelPatcherDynamic(model.model, model.load_device, model.offload_device)
            for name, holder in (("text encoder", clip), ("vae", vae)):
                old = holder.patcher
                if name in lent:
                    holder.patcher = ModelPatcherDynamic(old.model, old.load_device, torch.device("cpu"))
                    holder.patcher.__dict__.update({key: old.__dict__[key] for key in ("is_clip", "hook_mode")})
                    holder.patcher.set_model_compute_dtype(torch.float32)
        return model, clip, vae

    def cell(
        self,
        budget: float,
        checkpointing: str = "off",
        mode: str = "exact",
        lora: bool = False,
        motion: str = "",
        lent: str = "model, text encoder, vae",
        file: str = "",
        compute: str = "fp32",
        pressure: float = 0.1,
    ) -> dict[str, Any]:
        """One combination: slopes, and whether plain sampling is what the classic patcher gives.

        In bf16 differences are noise; there the gradient is compared with that of the classic patcher.

        Args:
            budget: share of the weights that finds room. pressure: see aimdo.py.
            lent: which models are. file: type of the model's weights, if not that which it computes in.
        """
        self.vram.reset(1 << 60)
        models = self.models(lent, file, compute, motion)
        patchers = [models[0], models[1].patcher, models[2].patcher]
        reference = self.plain(file, compute, lora, motion)
        model = self._patched(models[0], lora, motion)
        room = budget * sum(patcher.model_size() for patcher in patchers if patcher.is_dynamic())
        self.vram.reset(int(room), pressure if budget < 1 else 0.0)
        before = self.stock(model)
        options = {"latent_image": self.tiny.latent(FRAMES), **SAMPLING}
        settings = {"mode": mode, "checkpointing": checkpointing, "stop": 1 / SAMPLING["steps"]}
        if file and compute == "bf16":
            found = self.gradient_error(model, (file, compute, lora, motion), settings, options)
        else:
            (found,) = self.tiny.slopes(model=model, settings=settings, epsilon=EPSILON, **options)
        after = self.stock(model)
        return {
            **found,
            "plain": [bool(torch.equal(found, reference)) for found in (before, after)],
            "evicted": self.vram.evicted,
        }

    def models(self, lent: str, file: str, compute: str, motion: str) -> tuple[Any, Any, Any]:
        """The lent models, used by `tiny` from now on; weights are the same each time.

        One for each motion model: a model that was sampled with it and without it has swapped noise levels (a fault
        of ComfyUI's, #16490).
        """
        key = lent, file, compute, motion
        if key not in self.made:
            self.made[key] = self.dynamic(lent, file, compute)
        self._use(self.made[key])
        return self.made[key]

    @contextmanager
    def classically(self, file: str, compute: str) -> Iterator[Any]:
        """Within it `tiny` uses models whose weights are theirs, in the file's type cast to that of the computation."""
        used = self.tiny.model, self.tiny.clip, self.tiny.vae
        key = "classic", file, compute
        if key not in self.made:
            model = self.node.make(compute, 0)[0] if compute != "fp32" or file else self.classic[0]
            if file:
                weights = self.node.make(file, 0)[0].model.diffusion_model.state_dict()
                model.model.diffusion_model.load_state_dict(weights)
            self.made[key] = model, *self.classic[1:]
        self._use(self.made[key])
        try:
            yield self.tiny.model
        finally:
            self._use(used)

    def plain(self, file: str, compute: str, lora: bool, motion: str) -> torch.Tensor:
        """Latents of the classic patcher."""
        key = file, compute, lora, motion
        if key not in self.references:
            with self.classically(file, compute) as model:
                self.references[key] = self.stock(self._patched(model, lora, motion))
        return self.references[key]

    def gradient_error(self, model: Any, key: Any, settings: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        """Of the gradient, beside that of the classic patcher: lengths, and the cosine between them."""
        file, compute, lora, motion = key
        options = {**options, **settings, "start": 0.0, "lambda_reg": 0.0}
        (found,) = self.tiny.gradients(model=model, **options)
        with self.classically(file, compute) as classic:
            (exact,) = self.tiny.gradients(model=self._patched(classic, lora, motion), **options)
        cosine = torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0)
        return {"autograd": float(found.norm()), "classic": float(exact.norm()), "cosine": float(cosine)}

    def stock(self, model: Any) -> torch.Tensor:
        return self.tiny.stock(model=model, latent_image=self.tiny.latent(FRAMES), **SAMPLING)

    def _patched(self, model: Any, lora: bool, motion: str) -> Any:
        if lora:
            model, noise = model.clone(), torch.Generator().manual_seed(0)
            weights = {k: w for k, w in model.model.state_dict().items() if k.endswith("attn2.to_v.weight")}
            model.add_patches({k: (0.05 * torch.randn(w.shape, generator=noise),) for k, w in weights.items()})
        return self.tiny.animatediff(motion, model) if motion else model


def _pretend(stream: type) -> None:
    """Have ComfyUI take "cpu:0" for an accelerator with two streams."""
    import comfy.memory_management
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.ops
    from comfy.cli_args import args

    device = torch.device("cpu", 0)
    args.disable_pinned_memory = True
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    management.is_device_cpu = lambda found: found == torch.device("cpu")
    management.get_torch_device = lambda: device
    management.text_encoder_device = lambda: device
    management.NUM_STREAMS = 2
    for key in (device, torch.device("cpu")):
        management.STREAMS[key] = [stream(), stream()]
    context = comfy.ops.CastBiasWeightContext
    begin = context.__init__

    def begin_on_the_accelerator(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **{**kwargs, "device": device})

    context.__init__ = begin_on_the_accelerator


def main(comfyui: str, base: str) -> None:
    """Answer requests for cells, one JSON object a line, until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what ComfyUI prints is no answer
    world = World(Path(comfyui), Path(base))
    for line in sys.stdin:
        try:
            answer = world.cell(**json.loads(line))
        except Exception as error:
            import traceback

            answer = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


@contextmanager
def worker(comfyui: Path, base: Path, log: Path) -> Iterator[Any]:
    """A function that gives `World.cell` its arguments, in another process."""
    command = [
        sys.executable,
        "-c",
        f"from tests.comfyui.lent.world import main; main({str(comfyui)!r}, {str(base)!r})",
    ]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

        def ask(**options: Any) -> dict[str, Any]:
            process.stdin.write(json.dumps(options) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, f"ComfyUI ended: {log.read_text()[-3000:]}"
            return json.loads(line)

        ask.pid = process.pid
        try:
            yield ask
        finally:
            process.stdin.close()
            process.wait(30)
