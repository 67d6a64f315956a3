"""Model families, one file each; `base` tells how to add one. Every module of this folder is imported, so that a new
file is found by itself."""

from importlib import import_module
from pkgutil import iter_modules

from .base import ModelFamily, available_families, family_of, register_family, text_encoder_types
from .layouts import FramesFamily, LatentVideoFamily

for _module in sorted(module.name for module in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")

__all__ = [
    "FramesFamily",
    "LatentVideoFamily",
    "ModelFamily",
    "available_families",
    "family_of",
    "register_family",
    "text_encoder_types",
]
