"""What a family file tells about its models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .model import Variant

Shapes = Mapping[str, tuple[int, ...]]  # of a file's tensors, by the name that they have in it or in the network


@dataclass(frozen=True)
class VideoFamily:
    """A family of video models that share a network.

    Attributes:
        name: as users know it.
        matches: whether the file's keys are this family's, or a near relative's.
        refusal: what else it is; None if it can be run.
        renamed: a key of the file as the network has it; None if the network does without.
        unet_config: arguments of `VideoUNet`, from renamed keys.
        variant: (shapes, chosen, lowest_scale, file_name) -> the variant that the file is.
        variants: all there are.
        image_text: which image model's text encoder and autoencoder go with it.
    """

    name: str
    matches: Callable[[Shapes], bool]
    refusal: Callable[[Shapes], str | None]
    renamed: Callable[[str], str | None]
    unet_config: Callable[[Shapes], dict[str, object]]
    variant: Callable[[Shapes, str, float | None, str], Variant]
    variants: tuple[Variant, ...]
    image_text: str
