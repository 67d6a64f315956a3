"""The demo model itself: it is tiny."""

from __future__ import annotations

import functools
from typing import Any

from .models import pack_module


@functools.cache
def _demo() -> tuple[Any, Any, Any]:
    loaded = pack_module("nodes.demo").LoadDemoVideoModel.execute()
    return tuple(loaded.args)


FAMILY = (lambda: _demo()[0], lambda: _demo()[1], lambda: _demo()[2])
EMPTY_LATENT, FRAMES = ("EmptyLatentImage", "batch_size"), 4
