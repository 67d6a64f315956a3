"""Optical flow: one module a model, found through the registry in `base`."""

from . import lucas_kanade, raft, rife  # the order in which they are offered
from .base import FlowModel, available_flow_models, load_flow_model, register_flow_model

__all__ = [
    "FlowModel",
    "available_flow_models",
    "load_flow_model",
    "lucas_kanade",
    "raft",
    "register_flow_model",
    "rife",
]
