"""Prompts with learnable tokens: P + S through any of ComfyUI's text encoders, with gradients to S."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from comfy.sd1_clip import SDClipModel
from torch import Tensor

from ...motionprompt_core.guidance.autograd import save_copies
from .comfy_types import Clip, Cond, Conditioning
from .families import text_encoder_types

# The key of a conditioning's dictionary that carries the learnable tokens; ComfyUI copies it along whatever is done
# to it.
PAYLOAD = "motionprompt"
PLACEMENTS = ("end", "start")

# Tokens, embeddings and slots with their weights; the number of the word behind it where a node asked for that.
Section = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Slot:
    """Stands in a token list for row `index` of the learnable tokens."""

    index: int


@dataclass(frozen=True)
class Encoded:
    """What a text encoder makes of a prompt: `cond` (B, L, D), and the other entries of its conditioning."""

    cond: Tensor
    extras: Cond

    def as_conditioning(self, **more: object) -> Conditioning:
        return [[self.cond, {**self.extras, **more}]]


class Prompt(Protocol):
    """A prompt with learnable tokens, see `LearnablePrompt`; or several blended or behind one another."""

    start: Encoded

    @property
    def clips(self) -> list[Clip]: ...

    @property
    def initial(self) -> dict[str, Tensor]: ...

    @property
    def plain(self) -> Encoded: ...

    def encode(self, rows: Mapping[str, Tensor]) -> Encoded: ...

    def resolve(self, cond: Tensor, pooled: Tensor | None) -> Prompt: ...


@dataclass(eq=False)
class LearnablePrompt:
    """A prompt P with n learnable tokens S.

    Attributes:
        clip: ComfyUI's CLIP, with its clip skip and LoRAs. text: P.
        sections: P + S per text encoder, as token lists with a `Slot` for each learnable token.
        initial: T0 per text encoder, (n, d).
        plain: P alone, encoded. start: P + S at T0, encoded.
        beside: keeps the prompts alive that may be found behind it in one conditioning.
    """

    clip: Clip
    text: str
    sections: dict[str, list[Section]]
    initial: dict[str, Tensor]
    plain: Encoded = field(repr=False)
    start: Encoded = field(repr=False)
    beside: object = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _living.add(self)

    @property
    def clips(self) -> list[Clip]:
        return [self.clip]

    def encode(self, rows: Mapping[str, Tensor]) -> Encoded:
        """Encode P + S with S at `rows` (n, d) per text encoder, differentiably. The encoder must have been loaded."""
        model = self.clip.cond_stage_model
        model.reset_clip_options()
        if self.clip.layer_idx is not None:
            model.set_clip_options({"layer": self.clip.layer_idx})
        model.set_clip_options({"execution_device": self.clip.patcher.load_device})
        with save_copies():
            cond, pooled, *extra = model.encode_token_weights(_fill(self.sections, rows))
        extras = {"pooled_output": pooled}
        for more in extra:
            extras.update(more)
        return Encoded(cond, extras)

    def resolve(self, cond: Tensor, pooled: Tensor | None) -> LearnablePrompt:
        """Itself; see `PromptBook` for prompts of which more has to be found out when they are sampled."""
        return self

    def conditioning(self) -> Conditioning:
        """CONDITIONING of P + S at T0 that carries the prompt; a stock sampler sees ordinary conditioning."""
        return self.start.as_conditioning(**{PAYLOAD: self})


_living: weakref.WeakSet[LearnablePrompt] = weakref.WeakSet()


def living_prompts() -> list[LearnablePrompt]:
    """Every learnable prompt that some conditioning, or a CLIP, still holds."""
    return list(_living)


def learnable_prompt(clip: Clip, text: str, init: str, count: int, placement: str) -> LearnablePrompt:
    """Append (or prepend) `count` learnable tokens to a prompt.

    Args:
        clip: ComfyUI's CLIP. text: P, with ComfyUI's weights and embeddings.
        init: the words whose embeddings S starts from, one token each; repeated if they are fewer than `count`.
        placement: "end" or "start" of P. Tokens that do not fit into the prompt's last (first) chunk get one of
            their own.

    Raises:
        ValueError: there is no text encoder, no initial word, more initial words than tokens, or too many tokens for
            one chunk of the text encoder.
    """
    if clip is None:
        raise ValueError("MotionPrompt Conditioning: clip is missing. The checkpoint has no text encoder; load one.")
    if clip.use_clip_schedule and clip.patcher.forced_hooks is not None:
        raise ValueError(
            "MotionPrompt Conditioning: the CLIP has scheduled LoRA hooks, whose weights change while sampling. "
            "Use LoraLoader for the text encoder, or turn the CLIP schedule off in Set CLIP Hooks."
        )
    return learnable_tokens(clip, clip.tokenize(text), text, init, count, placement)


def learnable_tokens(
    clip: Clip, tokens: Mapping[str, list[Section]], text: str, init: str, count: int, placement: str
) -> LearnablePrompt:
    """The same for a prompt that has been tokenized, and whose tokens a node may have changed since (SDXL's two texts,
    chunks joined by BREAK, other weights).

    Args:
        tokens: from `clip.tokenize`. text: for messages.

    Raises:
        ValueError: as `learnable_prompt`.
    """
    numbered = any(len(token) > 2 for key in tokens for section in tokens[key] for token in section)
    empty, words = clip.tokenize("", return_word_ids=numbered), clip.tokenize(init)
    clip.load_model()
    initial, sections = {}, dict(tokens)
    for key, encoder in _encoders(clip, tokens).items():
        tokenizer = _tokenizer(clip, key)
        begun = [section[slice(*_span(section, tokenizer))] for section in words[key]]
        start, weights = _initial_rows(encoder, sum(begun, []), init, count, key)
        number = [1 + max(token[2] for section in tokens[key] for token in section)] if numbered else []
        slots: Section = [(Slot(i), weight, *number) for i, weight in enumerate(weights)]
        sections[key] = _insert(tokens[key], slots, placement, empty[key][0], tokenizer)
        initial[key] = start
    plain = _encode_scheduled(clip, tokens)
    start_encoded = _encode_scheduled(clip, _fill(sections, initial))
    return LearnablePrompt(clip, text, sections, initial, plain, start_encoded)


def _encode_scheduled(clip: Clip, tokens: Mapping[str, list[Section]]) -> Encoded:
    [[cond, extras]] = clip.encode_from_tokens_scheduled(tokens)
    return Encoded(cond, extras)


def _encoders(clip: Clip, keys: Iterable[str]) -> dict[str, SDClipModel]:
    """The text encoders of `clip` that take embeddings in place of tokens, by tokenizer key ("l", "g", ...)."""
    model = clip.cond_stage_model
    found = {key: getattr(model, f"clip_{key}", getattr(model, key, None)) for key in keys}
    encoders: dict[str, SDClipModel] = {
        key: encoder for key, encoder in found.items() if isinstance(encoder, SDClipModel)
    }
    networks = [encoder.transformer for encoder in encoders.values()]
    others = [type(network).__name__ for network in networks if not isinstance(network, text_encoder_types())]
    if others or not encoders:
        names = ", ".join(others) or type(model).__name__
        raise ValueError(
            f"MotionPrompt Conditioning: the text encoder {names} takes no learnable tokens. "
            "Use a model with a CLIP or T5 text encoder, such as AnimateDiff, Wan 2.1 or LTX-Video; a language model "
            "in its place cannot learn. Steady Motion guides such a model without a prompt of its own."
        )
    return encoders


def _tokenizer(clip: Clip, key: str) -> object:
    return getattr(clip.tokenizer, f"clip_{key}", getattr(clip.tokenizer, key, None))


def _span(section: Section, tokenizer: object) -> tuple[int, int]:
    """Where a section's words begin and end, between the tokens that begin it, end it and fill it up."""

    def ends(index: int, token: object) -> bool:
        found = section[index][0]
        return isinstance(found, int) and found == token

    end_token, pad_token = getattr(tokenizer, "end_token", None), getattr(tokenizer, "pad_token", None)
    first, last = getattr(tokenizer, "tokens_start", 0), len(section)
    while last > first and ends(last - 1, pad_token):
        last -= 1
    if end_token is not None and pad_token != end_token and last > first and ends(last - 1, end_token):
        last -= 1
    return first, last


def _initial_rows(encoder: SDClipModel, words: Section, init: str, count: int, key: str) -> tuple[Tensor, list[float]]:
    """T0 (count, d) on the CPU, and each token's prompt weight."""
    if not words:
        raise ValueError(
            f"MotionPrompt Conditioning: the init word {init!r} is empty. Type a word, such as 'authentic'."
        )
    if len(words) > count:
        raise ValueError(
            f"MotionPrompt Conditioning: {init!r} is {len(words)} tokens for text encoder {key!r}, but there are only "
            f"{count} learnable tokens. Set token_count to {len(words)}, or use a shorter word."
        )
    table = encoder.transformer.get_input_embeddings()
    rows = []
    with torch.no_grad():
        for token, *_ in words:
            if not torch.is_tensor(token):
                ids = torch.tensor([int(token)], device=table.weight.device)
                token = table(ids, out_dtype=torch.float32)[0]
            rows.append(token.detach().float().cpu())
    picked = [i % len(words) for i in range(count)]
    return torch.stack([rows[i] for i in picked]), [words[i][1] for i in picked]


def _insert(
    sections: list[Section], slots: Section, placement: str, empty: Section, tokenizer: object
) -> list[Section]:
    """Put the slots beside the prompt's first or last word, in place of padding; in a chunk of their own if it is full.

    Args:
        empty: the section of a prompt without words.
    """
    at_end = placement == "end"
    place = len(sections) - 1 if at_end else 0
    filled = _insert_into(sections[place], slots, at_end, tokenizer)
    result = list(sections)
    if filled is not None:
        result[place] = filled
        return result
    filled = _insert_into(empty, slots, at_end, tokenizer)
    if filled is None:
        room = max(0, (getattr(tokenizer, "max_length", None) or len(empty)) - _span(empty, tokenizer)[0] - 1)
        raise ValueError(
            f"MotionPrompt Conditioning: {len(slots)} learnable tokens overflow the text encoder, whose chunks hold "
            f"{room}. Use at most {room} tokens."
        )
    result.insert(len(sections) if at_end else 0, filled)
    return result


def _insert_into(section: Section, slots: Section, at_end: bool, tokenizer: object) -> Section | None:
    first, last = _span(section, tokenizer)
    at = last if at_end else first
    filled = [*section[:at], *slots, *section[at:]]
    # One token after the last word ends the prompt, the rest is padding, which makes room.
    padding = max(0, len(section) - last - 1)
    filled = filled[: len(filled) - min(padding, len(slots))]
    return filled if len(filled) <= (getattr(tokenizer, "max_length", None) or len(section)) else None


def _fill(sections: Mapping[str, list[Section]], rows: Mapping[str, Tensor]) -> dict[str, list[Section]]:
    """Token lists for ComfyUI's text encoder, with the learnable tokens' rows in their slots."""
    return {
        key: [[(rows[key][t.index] if isinstance(t, Slot) else t, *rest) for t, *rest in section] for section in chunks]
        for key, chunks in sections.items()
    }
