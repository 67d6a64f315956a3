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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ..tiny import TEXT

ROOT = Path(__file__).resolve().parents[3]
# Loss in fp32 has 7 digits, of which a smaller step would leave too few.
EPSILON = 8e-3
# The least that shows everything.
FRAMES, SAMPLING = 2, {"steps": 2, "cfg": 1.0}
NATIVE = ("lavie", "videocrafter2", "dynamicrafter")


@dataclass(frozen=True)
class Kind:
    """What models a combination has.

    Args:
        lent: those whose weights are lent. how: "dynamic", or "streamed" as where a model is loaded in part.
        family: of `NATIVE`, or "" for Stable Diffusion 1.5. motion: AnimateDiff's version, if any.
        control: with a ControlNet. file: type of the model's weights, if not that which it computes in.
    """

    lent: str = "model, text encoder, vae, controlnet"
    how: str = "dynamic"
    family: str = ""
    motion: str = ""
    control: bool = False
    file: str = ""
    compute: str = "fp32"


@dataclass
class Models:
    model: Any
    clip: Any
    vae: Any
    control: Any = None

    def patchers(self) -> list[Any]:
        found = [self.model, self.clip.patcher, self.vae.patcher]
        return found if self.control is None else [*found, self.control.control_model_wrapped]


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
        from ..tiny_family import TinyFamily

        self.comfy = InProcessComfy.get(comfyui, base)
        _pretend(aimdo.Stream)
        self.comfy.pack_module = self.comfy.load_pack(ROOT)
        for pack in sorted((Path(__file__).parents[1] / "packs").glob("*/__init__.py")):
            self.comfy.load_pack(pack.parent)
        self.comfy.load_pack(animatediff(comfyui))
        self.make_models = sys.modules[self.comfy.node("TinyVideoModel").__module__]
        first = Tiny(self.comfy)
        native = {name: TinyFamily(self.comfy, name, first.flow, first.discriminator) for name in NATIVE}
        self.tinies = {"": first, **native}
        self.tiny: Any = first
        self.made: dict[Any, Models] = {}
        self.references: dict[Any, torch.Tensor] = {}

    def cell(
        self,
        budget: float,
        checkpointing: str = "off",
        mode: str = "exact",
        lora: bool = False,
        motion: str = "",
        pressure: float = 0.1,
        estimate: bool = False,
        **what: Any,
    ) -> dict[str, Any]:
        """One combination: slopes, and whether plain sampling is what it is where weights are the layers' own.

        In bf16 differences are noise; there the gradient is compared with that of the classic patcher.

        Args:
            budget: share of the weights that finds room. pressure: see aimdo.py.
            estimate: correct the estimate instead of guiding tokens, and compare with the classic patcher's.
            what: the models, see `Kind`.
        """
        kind = Kind(motion=motion, **what)
        self.tiny = self.tinies[kind.family]
        self.vram.reset(1 << 60)
        models = self.models(kind)
        reference = self.plain(kind, lora)
        model = self._patched(self.use(models), lora, motion)
        room = budget * sum(patcher.model_size() for patcher in models.patchers() if patcher.is_dynamic())
        self.vram.reset(int(room), pressure if budget < 1 else 0.0)
        for layer in (part for extra in model.get_additional_models() for part in extra.model.modules()):
            layer.streamed = budget < 1  # AnimateDiff-Evolved has a patcher of the classic kind
        streamed = [patcher for patcher in models.patchers() if hasattr(patcher.model, "share")]
        for patcher in streamed:
            patcher.model.share = budget
        if estimate:
            return self.corrected(model, kind, lora)
        before = self.stock(model)
        options = {"latent_image": self.tiny.latent(FRAMES), **SAMPLING}
        settings = {"mode": mode, "checkpointing": checkpointing, "stop": 1 / SAMPLING["steps"]}
        if kind.file and kind.compute == "bf16":
            found = self.gradient_error(model, kind, lora, settings, options)
        else:
            (found,) = self.tiny.slopes(model=model, settings=settings, epsilon=self.epsilon(), **options)
        after = self.stock(model)
        return {
            **found,
            "plain": [bool(torch.equal(found, reference)) for found in (before, after)],
            "lent": self.vram.evicted + sum(patcher.model.model_lowvram for patcher in streamed),
        }

    def epsilon(self) -> float:
        """Length of the differences, by the tokens' size where a family says one."""
        return max(EPSILON, getattr(self.tiny, "epsilon", 0.0))

    def models(self, kind: Kind) -> Models:
        """The models, whose weights are the same each time; made once.

        One for each motion model: a model that was sampled with it and without it has swapped noise levels (a fault
        of ComfyUI's, #16490).
        """
        if kind not in self.made:
            with torch.inference_mode():
                self.made[kind] = self._make(kind)
        return self.made[kind]

    def _make(self, kind: Kind) -> Models:
        lend = _patchers()

        def patcher(part: str) -> Any:
            return lend[kind.how if part in kind.lent else "classic"]

        def made(part: str, make: Any) -> Any:
            """What takes the class that ComfyUI has for its models."""
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("comfy.model_patcher.CoreModelPatcher", patcher(part))
                return make()

        tiny = self.make_models.models
        if kind.family:
            model = made("model", self.tiny.tiny.FAMILY[0])
        else:
            model = self.comfy.node("TinyVideoModel")().make(kind.compute, 0)[0]
            if kind.file:
                own = self.comfy.node("TinyVideoModel")().make(kind.file, 0)[0].model.diffusion_model.state_dict()
                model.model.diffusion_model.load_state_dict(own, assign="model" in kind.lent)
            model = patcher("model")(model.model, model.load_device, model.offload_device)
        clip, vae = made("text encoder", tiny.tiny_clip), made("vae", tiny.tiny_vae)
        return Models(model, clip, vae, made("controlnet", tiny.tiny_controlnet) if kind.control else None)

    def use(self, models: Models) -> Any:
        """Have `tiny` use these models, and encode its prompts with them. Returns the MODEL."""
        tiny = self.tiny
        tiny.model, tiny.clip, tiny.vae = models.model, models.clip, models.vae
        tiny.learnable, tiny.plain, tiny.negative = tiny.prompt(), tiny.encode(TEXT), tiny.encode("blurry")
        if models.control is not None:
            hint = torch.rand(FRAMES, 64, 64, 3, generator=torch.Generator().manual_seed(0))
            for name in ("learnable", "plain"):
                given = {"conditioning": getattr(tiny, name), "control_net": models.control, "image": hint}
                setattr(tiny, name, self.comfy.run("ControlNetApply", strength=1.0, **given)[0])
        return models.model

    @contextmanager
    def classically(self, kind: Kind) -> Iterator[Any]:
        """Within it `tiny` uses models whose weights are theirs, in the file's type cast to that of the computation."""
        try:
            yield self.use(self.models(replace(kind, lent="", motion="")))
        finally:
            self.use(self.models(kind))

    def plain(self, kind: Kind, lora: bool) -> torch.Tensor:
        """Latents of the classic patcher."""
        key = replace(kind, lent=""), lora
        if key not in self.references:
            with self.classically(kind) as model:
                self.references[key] = self.stock(self._patched(model, lora, kind.motion))
        return self.references[key]

    def gradient_error(
        self, model: Any, kind: Kind, lora: bool, settings: dict[str, Any], options: dict[str, Any]
    ) -> dict[str, Any]:
        """Of the gradient, beside that of the classic patcher: lengths, and the cosine between them."""
        options = {**options, **settings, "start": 0.0, "lambda_reg": 0.0}
        (found,) = self.tiny.gradients(model=model, **options)
        with self.classically(kind) as classic:
            (exact,) = self.tiny.gradients(model=self._patched(classic, lora, kind.motion), **options)
        cosine = torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0)
        return {"autograd": float(found.norm()), "classic": float(exact.norm()), "cosine": float(cosine)}

    def corrected(self, model: Any, kind: Kind, lora: bool) -> dict[str, Any]:
        """Steps that were corrected, what that changed, and how far it is from the classic patcher's."""
        options = {"latent_image": self.tiny.latent(4), "steps": 4, "cfg": 1.0}
        steadying = self.comfy.module("nodes.host.steadying")
        report = self.comfy.module("nodes.host.correction_report").EstimateReport()

        def steady(model: Any) -> torch.Tensor:
            patch = steadying.EstimatePatch(1.0, self.tiny.vae, self.tiny.flow, report)
            return self.tiny.stock(model=patch.attach(model), **options)

        found, plain = steady(model), self.tiny.stock(model=model, **options)
        steps = len(report.steps)
        with self.classically(kind) as classic:
            expected = steady(self._patched(classic, lora, kind.motion))
        changed, apart = float((found - plain).norm()), float((found - expected).norm())
        return {"steps": steps, "changed": changed, "apart": apart}

    def stock(self, model: Any) -> torch.Tensor:
        return self.tiny.stock(model=model, latent_image=self.tiny.latent(FRAMES), **SAMPLING)

    def _patched(self, model: Any, lora: bool, motion: str) -> Any:
        if lora:
            model, noise = model.clone(), torch.Generator().manual_seed(0)
            weights = {k: w for k, w in model.model.state_dict().items() if k.endswith("attn2.to_v.weight")}
            model.add_patches({k: (0.05 * torch.randn(w.shape, generator=noise),) for k, w in weights.items()})
        return self.tiny.animatediff(motion, model) if motion else model


def _patchers() -> dict[str, type]:
    """ComfyUI's classes for a model, by how its weights are had."""
    from comfy.model_patcher import ModelPatcher, ModelPatcherDynamic

    class Streamed(ModelPatcher):
        """Loaded in part, as with little video memory and without dynamic VRAM: the rest is streamed layer by layer."""

        def __init__(self, model: Any, *args: Any, **kwargs: Any):
            super().__init__(model, *args, **kwargs)
            if not hasattr(model, "share"):
                model.share = 1.0

        def load(self, device_to: Any = None, lowvram_model_memory: float = 0, **how: Any) -> None:
            room = max(0.1, self.model.share * self.model_size())
            super().load(device_to, lowvram_model_memory=room, **{**how, "full_load": False})

    return {"classic": ModelPatcher, "dynamic": ModelPatcherDynamic, "streamed": Streamed}


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

    def begin_where_the_weight_is(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **({**kwargs, "device": device} if args and _is_lent(args[0]) else kwargs))

    context.__init__ = begin_where_the_weight_is


def _is_lent(layer: Any) -> bool:
    """Whether a layer's weights come and go: not small ones, nor those of a model that is loaded for good."""
    left_behind = hasattr(layer, "prev_comfy_cast_weights") and not getattr(layer, "comfy_patched_weights", False)
    return hasattr(layer, "_v") or left_behind or getattr(layer, "streamed", False)


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
