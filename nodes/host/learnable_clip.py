"""A CLIP whose every prompt carries learnable tokens, for nodes that encode text themselves.

AnimateDiff-Evolved's prompt scheduling encodes a prompt per keyframe and blends the results over the frames. It knows
nothing of learnable tokens, but it has the CLIP tokenize, encode, and last add entries of its own to the conditioning:
there the tokens come in. How each frame was blended is found out from the result when it is sampled.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from comfy.sd import CLIP
from torch import Tensor

from .comfy_types import Clip, Cond
from .tokens import PAYLOAD, Encoded, LearnablePrompt, Section, learnable_tokens

# Greatest error, in units of the embeddings' standard deviation, at which a frame counts as a blend of the prompts.
TOLERANCE = 1e-2


_KNOWN = 256  # prompts that a CLIP remembers; a schedule of more is refused when it is sampled
_clips: weakref.WeakSet[LearnableCLIP] = weakref.WeakSet()


class LearnableCLIP(CLIP):
    """A clone of a CLIP that gives each prompt it encodes the same learnable tokens.

    Args:
        clip: the CLIP. options: init words, token count and placement as for `learnable_prompt`.

    Attributes:
        encoded: prompts that wait for a node to build its conditioning with this CLIP's help.
    """

    def __init__(self, clip: CLIP, init: str, count: int, placement: str):
        super().__init__(no_init=True)
        self.__dict__.update(CLIP.clone(clip).__dict__)
        self.options = (init, count, placement)
        self.encoded: dict[str, LearnablePrompt] = {}
        self._known: dict[str, LearnablePrompt] = {}
        _clips.add(self)

    def clone(self, *args: object, **kwargs: object) -> LearnableCLIP:
        clip = CLIP.clone(self, *args, **kwargs)
        return LearnableCLIP(clip, *self.options)

    def tokenize(self, text: str, *args: object, **kwargs: object) -> _Tokens:
        return _Tokens(text, super().tokenize(text, *args, **kwargs))

    def encode_from_tokens(
        self, tokens: Mapping[str, list[Section]], return_pooled: object = False, return_dict: bool = False
    ) -> object:
        key = _digest(tokens, self.layer_idx)
        prompt = self._known.pop(key, None)
        if prompt is None:
            text = tokens.text if isinstance(tokens, _Tokens) else ""
            prompt = learnable_tokens(CLIP.clone(self), tokens, text, *self.options)
            prompt.beside = self._known
        self._known[key] = self.encoded[key] = prompt
        while len(self._known) > _KNOWN:
            del self._known[next(iter(self._known))]
        if return_dict:
            return {"cond": prompt.start.cond, **prompt.start.extras, PAYLOAD: prompt}
        return (prompt.start.cond, prompt.start.extras.get("pooled_output")) if return_pooled else prompt.start.cond

    def add_hooks_to_dict(self, pooled_dict: Cond) -> Cond:
        pooled_dict = super().add_hooks_to_dict(pooled_dict)
        if self.encoded:
            pooled_dict.setdefault(PAYLOAD, PromptBook(list(self._known.values())))
            self.encoded = {}
        return pooled_dict


def recovered(cond: Tensor, pooled: Tensor | None) -> BlendedPrompt | None:
    """The prompts of a conditioning that a node built from the text encoder's bare output, as FizzNodes' schedules do:
    it carries nothing of ours, but it is a blend of what a MotionPrompt CLIP has encoded, or it is none."""
    for clip in list(_clips):
        prompts = list(clip._known.values())
        clip.encoded = {}
        if prompts:
            try:
                return PromptBook(prompts).resolve(cond, pooled)
            except ValueError:
                continue
    return None


def _digest(tokens: Mapping[str, list[Section]], layer: object) -> str:
    """Tells prompts apart by their tokens, which nodes may change after they were made from a text."""
    digest = hashlib.sha256(repr(layer).encode())
    for key in sorted(tokens):
        for section in tokens[key]:
            digest.update(f"{key} {len(section)}".encode())
            for token, weight, *_ in section:
                if isinstance(token, Tensor):
                    token = token.detach().float().cpu().contiguous().numpy().tobytes()
                digest.update(f"{token!r} {weight!r}".encode())
    return digest.hexdigest()


class _Tokens(dict[str, list[Section]]):
    """A tokenized prompt that remembers its text."""

    def __init__(self, text: str, tokens: Mapping[str, list[Section]]):
        super().__init__(tokens)
        self.text = text


class PromptBook:
    """The prompts that went into a conditioning, blended in a way not known yet."""

    def __init__(self, prompts: list[LearnablePrompt]):
        self.prompts = prompts
        self._blended: BlendedPrompt | None = None

    def resolve(self, cond: Tensor, pooled: Tensor | None) -> BlendedPrompt:
        """The prompts with their weights in each frame.

        Raises:
            ValueError: a frame is no blend of the prompts.
        """
        if self._blended is None or self._blended.start.cond is not cond:
            fitting = [prompt for prompt in self.prompts if prompt.start.cond.shape[1:] == cond.shape[1:]]
            weights = _weights(cond, [prompt.start.cond for prompt in fitting])
            used = [index for index in range(len(fitting)) if weights[:, index].any()]
            fitting, weights = [fitting[index] for index in used], weights[:, used]
            starts = [prompt.start for prompt in fitting]
            pooleds = [start.extras.get("pooled_output") for start in starts]
            usable = pooled is not None and all(p is not None for p in pooleds)
            pooled_weights = _weights(pooled, pooleds) if usable else None  # pyright: ignore[reportArgumentType]
            self._blended = BlendedPrompt(fitting, weights, pooled_weights, Encoded(cond, {"pooled_output": pooled}))
        return self._blended


@dataclass(eq=False)
class BlendedPrompt:
    """Prompts that share their learnable tokens, blended differently in each frame.

    Attributes:
        weights: (F, K) of F frames and K prompts. pooled_weights: the same for the pooled output, or None.
        start: at T0, as the scheduling node made it.
    """

    prompts: list[LearnablePrompt]
    weights: Tensor
    pooled_weights: Tensor | None
    start: Encoded

    @property
    def clips(self) -> list[Clip]:
        return self.prompts[0].clips

    @property
    def initial(self) -> dict[str, Tensor]:
        return self.prompts[0].initial

    @property
    def plain(self) -> Encoded:
        return self._blend([prompt.plain for prompt in self.prompts])

    def encode(self, rows: Mapping[str, Tensor]) -> Encoded:
        return self._blend([prompt.encode(rows) for prompt in self.prompts])

    def resolve(self, cond: Tensor, pooled: Tensor | None) -> BlendedPrompt:
        return self

    def _blend(self, texts: list[Encoded]) -> Encoded:
        conds = torch.cat([text.cond for text in texts])
        cond = torch.einsum("fk,kld->fld", self.weights.to(conds), conds)
        if self.pooled_weights is None:
            return Encoded(cond, self.start.extras)
        pooled = torch.cat([text.extras["pooled_output"] for text in texts])
        return Encoded(cond, {"pooled_output": self.pooled_weights.to(pooled) @ pooled})


def _weights(blended: Tensor, parts: list[Tensor]) -> Tensor:
    """Weights (F, K) such that blended[f] is the weighted sum of the K parts, each (1, ...)."""
    if not parts or parts[0].shape[1:] != blended.shape[1:]:
        raise ValueError(
            "MotionPrompt: the scheduled prompts have different lengths (in chunks of the text encoder). Make them "
            "all short, or all long."
        )
    with torch.inference_mode(False):
        columns = torch.cat([part.flatten(1) for part in parts]).double().clone().T
        target = blended.flatten(1).double().clone().T
        weights = torch.linalg.pinv(columns, rtol=1e-9) @ target
        weights[weights.abs() < 1e-6] = 0
        error = (columns @ weights - target).abs().max()
    if error > TOLERANCE * target.std():
        raise ValueError(
            "MotionPrompt: the scheduled embeddings are no weighted sum of the prompts, so their learnable tokens "
            "cannot be found. Connect Prompt Scheduling's conditioning without a node that changes its embeddings."
        )
    return weights.T.float()
