"""Prompts behind one another in one conditioning, some of them learnable.

Conditioning (Concat) keeps the entries of the first conditioning only: what it put behind, or in front, carries nothing
of ours. Whether that was a learnable prompt is found out by comparing embeddings with those of the prompts that exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .comfy_types import Clip, Cond
from .tokens import Encoded, LearnablePrompt, Prompt, living_prompts


class ConcatenatedPrompt:
    """Parts in a row, each a learnable prompt or embeddings (B, L, D) that stay as they are; see `LearnablePrompt`.

    Attributes:
        initial: T0 of all learnable parts; the part's number stands before the text encoder's name.
    """

    def __init__(self, parts: Sequence[Tensor | Prompt], start: Encoded):
        self.parts, self.start = parts, start
        self.learnable = {number: part for number, part in enumerate(parts) if not isinstance(part, Tensor)}
        self.initial = {
            f"{number}.{key}": rows for number, part in self.learnable.items() for key, rows in part.initial.items()
        }

    @property
    def clips(self) -> list[Clip]:
        return [clip for part in self.learnable.values() for clip in part.clips]

    @property
    def plain(self) -> Encoded:
        return self._joined({number: part.plain for number, part in self.learnable.items()})

    def encode(self, rows: Mapping[str, Tensor]) -> Encoded:
        return self._joined(
            {
                number: part.encode({key: rows[f"{number}.{key}"] for key in part.initial})
                for number, part in self.learnable.items()
            }
        )

    def resolve(self, cond: Tensor, pooled: Tensor | None) -> ConcatenatedPrompt:
        return self

    def _joined(self, texts: Mapping[int, Encoded]) -> Encoded:
        """The first part's other entries are those of the whole, as Conditioning (Concat) has it."""
        like = next(iter(texts.values())).cond
        conds = [part.to(like) if isinstance(part, Tensor) else texts[n].cond for n, part in enumerate(self.parts)]
        return Encoded(torch.cat(conds, dim=1), texts[0].extras if 0 in texts else self.start.extras)


def split(cond: Tensor, first: Prompt | None = None) -> list[Tensor | Prompt]:
    """Embeddings (B, L, D) as a row of learnable prompts and of what is none of them.

    Args:
        first: a prompt that is known to be among them, and is preferred to others that are equal.
    """
    prompts: list[Prompt] = [first] if first is not None else []
    prompts += [prompt for prompt in living_prompts() if prompt is not first]
    parts: list[Tensor | Prompt] = []
    position = plain = 0
    while position < cond.shape[1]:
        found = next((prompt for prompt in prompts if _stands_at(cond, position, prompt.start.cond)), None)
        if found is None:
            position += 1
            continue
        parts += [cond[:, plain:position]] if position > plain else []
        parts.append(found)
        position = plain = position + found.start.cond.shape[1]
    return [*parts, cond[:, plain:]] if position > plain else parts


def _stands_at(cond: Tensor, position: int, start: Tensor) -> bool:
    here = cond[:, position : position + start.shape[1]]
    if here.shape != start.shape or not torch.equal(here[:, :1].to(start), start[:, :1]):
        return False
    return torch.equal(here.to(start), start)


def concatenated(cond: Tensor, extras: Cond, own: Prompt | None = None) -> ConcatenatedPrompt | None:
    """The prompt of a conditioning that has more in it than `own` (or, without it, of one that says nothing of ours);
    None if it is no row of parts with a learnable one (and, if given, `own`) among them."""
    parts = split(cond, own)
    learnable = [part for part in parts if isinstance(part, LearnablePrompt) or part is own]
    known = own in learnable if own is not None else len(parts) > 1
    return ConcatenatedPrompt(parts, Encoded(cond, extras)) if learnable and known else None
