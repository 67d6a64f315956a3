"""Prompts with learnable tokens: P + S through any of ComfyUI's text encoders, with gradients to S."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.sd1_clip import SDClipModel
from torch import Tensor

from ...motionprompt_core.guidance.autograd import save_copies
from .families import text_encoder_types

# The key of a conditioning's dictionary that carries the learnable tokens; ComfyUI copies it along whatever is done
# to it.
PAYLOAD = "motionprompt"
PLACEMENTS = ("end", "start")

Section = list[tuple[Any, float, int]]  # (token, weight, word number; 0 for tokens that are not of the prompt)


@dataclass(frozen=True)
class Slot:
    """Stands in a token list for row `index` of the learnable tokens."""

    index: int


@dataclass(frozen=True)
class Encoded:
    """What a text encoder makes of a prompt: `cond` (B, L, D), and the other entries of its conditioning."""

    cond: Tensor
    extras: dict[str, Any]

    def as_conditioning(self, **more: Any) -> list[list[Any]]:
        return [[self.cond, {**self.extras, **more}]]


@dataclass(eq=False)
class LearnablePrompt:
    """A prompt P with n learnable tokens S.

    Attributes:
        clip: ComfyUI's CLIP, with its clip skip and LoRAs. text: P.
        sections: P + S per text encoder, as token lists with a `Slot` for each learnable token.
        initial: T0 per text encoder, (n, d).
        plain: P alone, encoded. start: P + S at T0, encoded.
    """

    clip: Any
    text: str
    sections: dict[str, list[list[tuple[Any, float]]]]
    initial: dict[str, Tensor]
    plain: Encoded = field(repr=False)
    start: Encoded = field(repr=False)

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

    def conditioning(self) -> list[list[Any]]:
        """CONDITIONING of P + S at T0 that carries the prompt; a stock sampler sees ordinary conditioning."""
        return self.start.as_conditioning(**{PAYLOAD: self})


def learnable_prompt(clip: Any, text: str, init: str, count: int, placement: str) -> LearnablePrompt:
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
    tokens = clip.tokenize(text, return_word_ids=True)
    empty = clip.tokenize("", return_word_ids=True)
    words = clip.tokenize(init, return_word_ids=True)
    clip.load_model()
    initial, sections = {}, {}
    for key, encoder in _encoders(clip, tokens).items():
        start, weights = _initial_rows(encoder, words[key], init, count, key)
        slots = [(Slot(i), weight, 1) for i, weight in enumerate(weights)]
        limit = getattr(_tokenizer(clip, key), "max_length", None)
        lead = next(i for i, token in enumerate(words[key][0]) if token[2] != 0)
        sections[key] = _insert(tokens[key], slots, placement, empty[key][0], lead, limit)
        initial[key] = start
    for key in tokens:
        sections.setdefault(key, [[token[:2] for token in section] for section in tokens[key]])

    plain = _encode_scheduled(clip, {key: [[t[:2] for t in s] for s in tokens[key]] for key in tokens})
    start_encoded = _encode_scheduled(clip, _fill(sections, initial))
    return LearnablePrompt(clip, text, sections, initial, plain, start_encoded)


def _encode_scheduled(clip: Any, tokens: dict[str, Any]) -> Encoded:
    [[cond, extras]] = clip.encode_from_tokens_scheduled(tokens)
    return Encoded(cond, extras)


def _encoders(clip: Any, keys: Mapping[str, Any]) -> dict[str, SDClipModel]:
    """The text encoders of `clip` that take embeddings in place of tokens, by tokenizer key ("l", "g", ...)."""
    model = clip.cond_stage_model
    found = {key: getattr(model, f"clip_{key}", getattr(model, key, None)) for key in keys}
    encoders: dict[str, Any] = {key: encoder for key, encoder in found.items() if isinstance(encoder, SDClipModel)}
    networks = [encoder.transformer for encoder in encoders.values()]
    others = [type(network).__name__ for network in networks if not isinstance(network, text_encoder_types())]
    if others or not encoders:
        names = ", ".join(others) or type(model).__name__
        raise ValueError(
            f"MotionPrompt Conditioning: the text encoder {names} takes no learnable tokens. "
            "Use a model with a CLIP or T5 text encoder, such as AnimateDiff, Wan 2.1 or LTX-Video; a language model "
            "in its place is not supported."
        )
    return encoders


def _tokenizer(clip: Any, key: str) -> Any:
    return getattr(clip.tokenizer, f"clip_{key}", getattr(clip.tokenizer, key, None))


def _initial_rows(
    encoder: SDClipModel, sections: list[Section], init: str, count: int, key: str
) -> tuple[Tensor, list[float]]:
    """T0 (count, d) on the CPU, and each token's prompt weight."""
    words = [token for section in sections for token in section if token[2] != 0]
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
        for token, _, _ in words:
            if not torch.is_tensor(token):
                ids = torch.tensor([int(token)], device=table.weight.device)
                token = table(ids, out_dtype=torch.float32)[0]
            rows.append(token.detach().float().cpu())
    picked = [i % len(words) for i in range(count)]
    return torch.stack([rows[i] for i in picked]), [words[i][1] for i in picked]


def _insert(
    sections: list[Section], slots: Section, placement: str, empty: Section, lead: int, limit: int | None
) -> list[list[tuple[Any, float]]]:
    """Put the slots beside the prompt's first or last word, in place of padding; in a chunk of their own if it is full.

    Args:
        lead: number of tokens before a prompt's first word. limit: longest section that the encoder takes.
    """
    at_end = placement == "end"
    place = len(sections) - 1 if at_end else 0
    filled = _insert_into(sections[place], slots, at_end, lead, limit)
    result = list(sections)
    if filled is not None:
        result[place] = filled
    else:
        filled = _insert_into(empty, slots, at_end, lead, limit)
        if filled is None:
            room = max(0, (limit or len(empty)) - lead - 1)
            raise ValueError(
                f"MotionPrompt Conditioning: {len(slots)} learnable tokens overflow the text encoder, whose chunks "
                f"hold "
                f"{room}. Use at most {room} tokens."
            )
        result.insert(len(sections) if at_end else 0, filled)
    return [[token[:2] for token in section] for section in result]


def _insert_into(section: Section, slots: Section, at_end: bool, lead: int, limit: int | None) -> Section | None:
    words = [i for i, token in enumerate(section) if token[2] != 0]
    first, last = (words[0], words[-1]) if words else (lead, lead - 1)
    at = last + 1 if at_end else first
    filled = [*section[:at], *slots, *section[at:]]
    # One token after the last word ends the prompt, the rest is padding, which makes room.
    padding = max(0, len(section) - (last + 1) - 1)
    drop = min(padding, len(slots))
    filled = filled[: len(filled) - drop]
    return filled if len(filled) <= (limit or len(section)) else None


def _fill(sections: Mapping[str, Any], rows: Mapping[str, Tensor]) -> dict[str, list[list[tuple[Any, float]]]]:
    """Token lists for ComfyUI's text encoder, with the learnable tokens' rows in their slots."""
    return {
        key: [
            [(rows[key][t.index] if isinstance(t, Slot) else t, weight) for t, weight in section] for section in chunks
        ]
        for key, chunks in sections.items()
    }
