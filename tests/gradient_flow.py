"""The tests' flow model, registered as "gradient" in this process."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from motionprompt_core.flow import base, lucas_kanade, register_flow_model
from motionprompt_core.media import ops

_PATH = Path(__file__).parent / "comfyui" / "packs" / "tiny_models" / "gradient.py"
_SPEC = importlib.util.spec_from_file_location("motionprompt_tests_gradient", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

GradientFlow = _MODULE.gradient_flow(base, lucas_kanade, ops)
register_flow_model("gradient", GradientFlow.min_size)(lambda path, download: GradientFlow())
