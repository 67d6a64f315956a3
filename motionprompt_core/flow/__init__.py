"""Optical flow: one module a model, found through the registry in `base`. Every module of this folder is imported, by
name, so that a new file is found by itself."""

from importlib import import_module
from pkgutil import iter_modules

from .base import FlowModel, available_flow_models, load_flow_model, register_flow_model

for _module in sorted(module.name for module in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")

__all__ = ["FlowModel", "available_flow_models", "load_flow_model", "register_flow_model"]
