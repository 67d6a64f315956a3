"""One run of a guided sampler node: its models, its prompts, and what they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from torch import Tensor

from .caches import Layers
from .comfy_types import Executor, Guider, ModulePatcher, Options
from .decode import FrameDecoder, SliceDecoder
from .families import ModelFamily
from .gradients import check_interrupt
from .guidance import Guidance
from .peak_memory import PeakMemory
from .tokens import Encoded, Prompt


class Pass(Protocol):
    """A pass over the schedule, see `StepPass`."""

    def begin_steps(
        self, executor: Executor, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None
    ) -> None: ...


class GuidedRun:
    """What stays the same while a sampler node runs, however often it goes through the schedule (`StepPass`).

    Args:
        guidance: what guides it. guider: ComfyUI's guider. prompts: the learnable prompts among its conds.
        family: of the model. decoder: latents to pictures. shape: of the latents.

    Attributes:
        windows: the context windows in which the model sees the frames, or None.
        short_of_memory: memory has run out before. now: the pass that is going on, or None.
    """

    def __init__(
        self,
        guidance: Guidance,
        guider: Guider,
        prompts: list[Prompt],
        family: ModelFamily,
        decoder: FrameDecoder | SliceDecoder,
        shape: Iterable[int],
    ):
        self.guidance, self.settings, self.report = guidance, guidance.settings, guidance.report
        self.guider, self.prompts = guider, prompts
        self.family, self.decoder, self.shape = family, decoder, list(shape)
        self.windows = family.windows(guider.model_patcher, guider.model_options, self.shape)
        self.short_of_memory = False
        self.now: Pass | None = None
        self.layers = Layers()
        self.memory = PeakMemory(guider.model_patcher.load_device)

    def patchers(self) -> list[ModulePatcher]:
        """Everything that must be loaded beside the model."""
        ours = [self.guidance.flow, self.guidance.discriminator]
        found = [self.guidance.vae.patcher, *(clip.patcher for prompt in self.prompts for clip in prompt.clips)]
        found += [model.patcher for model in ours if model is not None]
        return list({id(patcher.model): patcher for patcher in found}.values())

    def check(self) -> None:
        """Between the parts of an iteration: stop if asked to, and see how much memory is in use."""
        check_interrupt()
        self.report.peak_memory = self.memory.look()

    def initial_tokens(self) -> dict[str, Tensor]:
        """T0 of all prompts and text encoders."""
        prompts = enumerate(self.prompts)
        return {f"{number}.{key}": rows for number, prompt in prompts for key, rows in prompt.initial.items()}

    def encode(self, rows: Mapping[str, Tensor]) -> dict[int, Encoded]:
        """Every learnable prompt encoded with its rows, by id."""
        texts = {}
        for number, prompt in enumerate(self.prompts):
            check_interrupt()
            texts[id(prompt)] = prompt.encode({key: rows[f"{number}.{key}"] for key in prompt.initial})
        return texts
