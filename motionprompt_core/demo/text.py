"""The demo's words, and the size of its text encoder: CLIP's text transformer in miniature, which ComfyUI brings."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

START, END = "<start>", "<end>"
SYNTAX = ("a", "an", "the", "moving", "standing", "at", "on", "over", "and", "very", "video", "motion", "of", "with")
# What the sprite world's captions say, see motionprompt_tools/world.py.
WORLD = (
    "circle square triangle star red green blue yellow purple orange sand grass night snow left right up down still "
    "smooth steady shaky flickering authentic realistic beautiful natural detailed vivid clear cinematic"
).split()
UNKNOWN = tuple(f"<unknown{i}>" for i in range(16))  # a word that is not in the vocabulary falls into one of these
VOCABULARY: dict[str, int] = {word: index for index, word in enumerate((START, END, *SYNTAX, *WORLD, *UNKNOWN))}
MAX_LENGTH = 24


def word_ids(text: str) -> list[int]:
    """Ids of the words of `text`; unknown words are hashed into a few ids that training used as meaningless filler."""
    return [
        VOCABULARY.get(word, VOCABULARY[UNKNOWN[zlib.crc32(word.encode()) % len(UNKNOWN)]])
        for word in re.findall(r"[a-z0-9]+", text.lower())
    ]


@dataclass(frozen=True)
class TextConfig:
    """The fields, and their names, of a Hugging Face CLIPTextConfig."""

    vocab_size: int = len(VOCABULARY)
    hidden_size: int = 128
    intermediate_size: int = 384
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    max_position_embeddings: int = MAX_LENGTH
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = VOCABULARY[END]
