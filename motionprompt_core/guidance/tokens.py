"""The learnable tokens S of the paper: rows T of one or more text encoders' embedding tables."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


class LearnableTokens:
    """Token embeddings T, optimised in fp32 whatever the text encoder's precision.

    Args:
        initial: T0 per text encoder, each (n, d): n tokens, d embedding channels. Copied.

    Raises:
        ValueError: there are no rows, a shape is not (n, d), or a value is not finite.
    """

    def __init__(self, initial: Mapping[str, Tensor]):
        if not initial:
            raise ValueError("There are no learnable tokens: give the initial rows of at least one text encoder.")
        for key, rows in initial.items():
            if rows.ndim != 2 or 0 in rows.shape:
                raise ValueError(f"Learnable tokens of {key!r} must be of shape (n, d), not {tuple(rows.shape)}.")
            if not torch.isfinite(rows).all():
                raise ValueError(f"The initial embedding of {key!r} has NaN or infinity; choose another initial word.")
        # Made outside of inference mode, or no gradient could ever reach them.
        with torch.inference_mode(False), torch.no_grad():
            self.initial = {key: rows.detach().to(torch.float32, copy=True) for key, rows in initial.items()}
            self.rows = {key: rows.clone().requires_grad_() for key, rows in self.initial.items()}

    def parameters(self) -> list[Tensor]:
        return list(self.rows.values())

    def detached(self) -> dict[str, Tensor]:
        """Copies of the rows T as they stand, without gradient."""
        return {key: rows.detach().clone() for key, rows in self.rows.items()}

    @torch.no_grad()
    def load(self, rows: Mapping[str, Tensor]) -> None:
        """Set T in place (a running optimiser keeps hold of its parameters) and forget any gradient."""
        for key, row in self.rows.items():
            row.copy_(rows[key])
            row.grad = None

    @torch.no_grad()
    def drift(self) -> tuple[float, float]:
        """How far T has moved from T0: the norm ||T - T0|| over all rows, and the mean cosine of T with T0."""
        moved = sum(float((rows - self.initial[key]).square().sum()) for key, rows in self.rows.items())
        cosines = torch.cat([F.cosine_similarity(rows, self.initial[key], dim=-1) for key, rows in self.rows.items()])
        return moved**0.5, float(cosines.mean())

    def __len__(self) -> int:
        return max(len(rows) for rows in self.rows.values())
