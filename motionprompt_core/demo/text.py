"""The demo's text encoder: CLIP's text transformer in miniature, with its parameter names, over a word vocabulary."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import world

START, END = "<start>", "<end>"
SYNTAX = ("a", "an", "the", "moving", "standing", "at", "on", "over", "and", "very", "video", "motion", "of", "with")
UNKNOWN = tuple(f"<unknown{i}>" for i in range(16))  # a word that is not in the vocabulary falls into one of these
VOCABULARY: dict[str, int] = {
    word: index
    for index, word in enumerate(
        (
            START,
            END,
            *SYNTAX,
            *world.SHAPES,
            *world.COLOURS,
            *world.GROUNDS,
            *world.DIRECTIONS,
            *world.QUALITY_WORDS,
            *world.FILLER_WORDS,
            *UNKNOWN,
        )
    )
}
MAX_LENGTH = 24


def word_ids(text: str) -> list[int]:
    """Ids of the words of `text`; unknown words are hashed into a few ids that training used as meaningless filler."""
    return [
        VOCABULARY.get(word, VOCABULARY[UNKNOWN[zlib.crc32(word.encode()) % len(UNKNOWN)]])
        for word in re.findall(r"[a-z0-9]+", text.lower())
    ]


def tokenize(texts: list[str]) -> Tensor:
    """Texts -> (B, MAX_LENGTH) ids: start, words, then end tokens as padding, as CLIP does for Stable Diffusion 1.5."""
    ids = torch.full((len(texts), MAX_LENGTH), VOCABULARY[END])
    for row, text in zip(ids, texts, strict=True):
        words = word_ids(text)[: MAX_LENGTH - 2]
        row[0] = VOCABULARY[START]
        row[1 : 1 + len(words)] = torch.tensor(words, dtype=torch.long)
    return ids


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


class SelfAttention(nn.Module):
    def __init__(self, config: TextConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        b, length, _ = x.shape
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (p(x).view(b, length, self.heads, -1).transpose(1, 2) for p in projections)
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(x.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, config: TextConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))  # quick_gelu


class Layer(nn.Module):
    def __init__(self, config: TextConfig):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = SelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    def __init__(self, config: TextConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        nn.init.normal_(self.token_embedding.weight, std=0.1)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]


class Layers(nn.Module):
    """The blocks, in a module of their own for CLIP's parameter names."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Transformer(nn.Module):
    def __init__(self, config: TextConfig):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Layers(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


class TextEncoder(nn.Module):
    """Ids (B, L) -> context (B, L, 128): the last hidden state after the final layer norm."""

    def __init__(self, config: TextConfig | None = None):
        super().__init__()
        self.text_model = Transformer(config or TextConfig())

    def forward(self, ids: Tensor) -> Tensor:
        x = self.text_model.encoder(self.text_model.embeddings(ids))
        return self.text_model.final_layer_norm(x)
