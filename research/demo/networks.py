"""What the demo model is made of outside of ComfyUI, which brings a text encoder of its own and trains nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motionprompt_core.demo.text import END, MAX_LENGTH, START, VOCABULARY, TextConfig, word_ids
from motionprompt_core.demo.unet import VideoUNet


def tokenize(texts: list[str]) -> Tensor:
    """Texts -> (B, MAX_LENGTH) ids: start, words, then end tokens as padding, as CLIP does for Stable Diffusion 1.5."""
    ids = torch.full((len(texts), MAX_LENGTH), VOCABULARY[END])
    for row, text in zip(ids, texts, strict=True):
        words = word_ids(text)[: MAX_LENGTH - 2]
        row[0] = VOCABULARY[START]
        row[1 : 1 + len(words)] = torch.tensor(words, dtype=torch.long)
    return ids


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


class TextToVideo(nn.Module):
    """Text encoder and UNet, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.text = TextEncoder()
        self.unet = VideoUNet()

    def forward(self, x: Tensor, timesteps: Tensor, ids: Tensor, places: Tensor | None = None) -> Tensor:
        """x (clips, frames, 4, h, w), timesteps (clips,), ids (clips, L) -> v of the same shape as x."""
        clips, frames = x.shape[:2]
        context = self.text(ids).repeat_interleave(frames, dim=0)
        v = self.unet(x.flatten(0, 1), timesteps.repeat_interleave(frames), context, frames, places)
        return v.view_as(x)


def alphas_cumprod() -> Tensor:
    """Stable Diffusion's schedule, rescaled to zero terminal SNR as ComfyUI does for `zsnr`; (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    root = (root - last) * first / (first - last)
    root[-1] = 4.8973451890853435e-08**0.5
    return (root**2).float()
