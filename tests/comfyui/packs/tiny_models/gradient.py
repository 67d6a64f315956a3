"""A flow model for tests of gradients: smooth in both frames, which estimates of real motion are not."""

from __future__ import annotations

from typing import Any


def gradient_flow(base: Any, lucas_kanade: Any, ops: Any) -> Any:
    """The class, for one copy of the core (ComfyUI loads the pack under a name of its own).

    Args:
        base, lucas_kanade, ops: its modules `flow.base`, `flow.lucas_kanade` and `media.ops`.
    """

    class GradientFlow(base.FlowModel):
        """One regularised Lucas-Kanade step on blurred luma, smooth in both frames.

        Sees only motion of up to about three pixels and underestimates it where there is little texture.
        """

        name, min_size, multiple, cost = "gradient", 16, 1, 0.01

        def __init__(self, blur: float = 1.5, window: float = 3.0, regularisation: float = 1e-4):
            super().__init__()
            self.blur, self.window, self.regularisation = blur, window, regularisation
            self.freeze()

        def estimate(self, a: Any, b: Any) -> Any:
            luma = a.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
            a, b = (ops.gaussian_blur((x * luma).sum(1, keepdim=True), self.blur) for x in (a, b))
            return lucas_kanade.lucas_kanade_step(a, b, self.window, self.regularisation)

    return GradientFlow
