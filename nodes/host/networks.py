"""Where the blocks of networks are that ComfyUI builds: what is checkpointed when memory is short."""

from __future__ import annotations

from collections.abc import Iterator

from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential
from torch import nn


def unet_layers(network: nn.Module) -> Iterator[nn.Module]:
    """The layers of the stages of a UNet of Stable Diffusion's layout, also those that AnimateDiff-Evolved adds."""
    for module in network.modules():
        if isinstance(module, TimestepEmbedSequential):
            yield from module.children()


def transformer_blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The items of the outermost lists of layers."""
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from transformer_blocks(child)


def decoder_blocks(autoencoder: nn.Module) -> Iterator[nn.Module]:
    """The blocks of an image autoencoder's decoder: what has layers of its own and is not only a container."""
    decoder = getattr(autoencoder, "decoder", getattr(autoencoder, "taesd_decoder", None))
    waiting: list[nn.Module] = [] if decoder is None else list(decoder.children())
    while waiting:
        module = waiting.pop()
        if type(module).forward in (nn.Module.forward, nn.Sequential.forward):
            waiting += module.children()
        elif next(module.children(), None) is not None:
            yield module
