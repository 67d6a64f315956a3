"""The prompt inside a running sampler: finding the learnable one among the conds, and swapping its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import comfy.samplers
import torch
from torch import Tensor

from .comfy_types import Cond, CondLists, Conds, Guider
from .concatenated import concatenated
from .learnable_clip import recovered
from .tokens import PAYLOAD, Encoded, Prompt


def resolved(conds: Conds) -> Conds:
    """The same conds, each learnable entry with its prompt ready to be encoded."""
    return {key: [_resolved(cond, key) for cond in entries] for key, entries in conds.items()}


def _resolved(cond: Cond, key: str) -> Cond:
    """
    Raises:
        ValueError: the embeddings were changed in a way that they cannot be encoded anew.
    """
    text, pooled = cond.get("cross_attn"), cond.get("pooled_output")
    if not isinstance(text, Tensor) or (key == "negative" and PAYLOAD not in cond):
        return cond
    extras = {} if pooled is None else {"pooled_output": pooled}
    if PAYLOAD not in cond:
        prompt = recovered(text, pooled) or concatenated(text, extras)
        return cond if prompt is None else {**cond, PAYLOAD: prompt}
    if key == "negative" and not text.any():
        return _zeroed(cond)
    prompt = cond[PAYLOAD].resolve(text, pooled)
    if text is not prompt.start.cond:
        prompt = concatenated(text, extras, prompt)
    if prompt is None and key == "negative":  # it does not learn
        return _without_payload(cond)
    if prompt is None:
        raise ValueError(
            "MotionPrompt: a node changed the embeddings of MotionPrompt Conditioning (Conditioning Average, Zero Out "
            "or the like), so the learnable tokens can no longer be found in them. Connect it without that node; "
            "combining, concatenating, areas, masks, time ranges and ControlNet are fine."
        )
    return {**cond, PAYLOAD: prompt}


def _zeroed(cond: Cond) -> Cond:
    """A negative prompt that Zero Out made of a learnable one: as many zeros as of the plain prompt."""
    plain: Encoded | None = getattr(cond[PAYLOAD], "plain", None)
    if plain is None:
        return _without_payload(cond)
    pooled = {name: value for name, value in cond.items() if name == "pooled_output"}
    return {**_without_payload(cond), **plain.extras, **pooled, "cross_attn": torch.zeros_like(plain.cond)}


def _without_payload(cond: Cond) -> Cond:
    return {name: value for name, value in cond.items() if name != PAYLOAD}


def find_prompts(conds: CondLists) -> list[Prompt]:
    """The learnable prompts of a guider's conds, each once; those of the negative prompt do not count.

    Raises:
        ValueError: there are none.
    """
    prompts = {id(c[PAYLOAD]): c[PAYLOAD] for k in conds if k != "negative" for c in conds[k] if PAYLOAD in c}
    if not prompts:
        raise ValueError(
            "MotionPrompt: the positive conditioning has no learnable tokens. Make it with MotionPrompt Conditioning "
            "instead of CLIP Text Encode (later nodes may combine, mask or time it). A node that weights embeddings "
            "itself (Advanced CLIP Text Encode) loses them, also with MotionPrompt CLIP. Where it is inside another "
            "node, set guide to estimate, or use Steady Motion: neither needs one."
        )
    return list(prompts.values())


def plain_conds(conds: Conds) -> Conds:
    """The same conds with the plain prompt P wherever P + S was."""
    return {
        key: [_with_text(cond, cond[PAYLOAD].plain) if PAYLOAD in cond else cond for cond in entries]
        for key, entries in conds.items()
    }


def _with_text(cond: Cond, text: Encoded) -> Cond:
    return {**cond, **text.extras, "cross_attn": text.cond}


@dataclass
class _Entry:
    """One learnable entry of the conds: where it is, and which other entries show the same text (areas)."""

    key: str
    cond: Cond
    places: list[tuple[str, int]] = field(default_factory=list)


class SwappableConds:
    """The processed conds of one sampling pass, which can be had with any encoding of the learnable prompts.

    Args:
        guider: ComfyUI's CFGGuider, its conds processed with the plain prompts.
        context: arguments of `encode_model_conds`: noise, device and the keyword arguments.
    """

    def __init__(self, guider: Guider, context: Mapping[str, object]):
        self.guider = guider
        self.plain: Conds = {key: list(entries) for key, entries in guider.conds.items()}
        self.context = context
        self.entries: list[_Entry] = []
        by_text = {}
        for key, entries in self.plain.items():
            for cond in entries:
                if key != "negative" and PAYLOAD in cond:
                    # ComfyUI copies entries to fill areas; a copy shares the object that holds its text.
                    text = id(cond["model_conds"].get("c_crossattn"))
                    if text not in by_text:
                        by_text[text] = _Entry(key, cond)
                        self.entries.append(by_text[text])
        for key, entries in self.plain.items():
            for index, cond in enumerate(entries):
                entry = by_text.get(id(cond.get("model_conds", {}).get("c_crossattn")))
                if entry is not None:
                    entry.places.append((key, index))

    def with_text(self, texts: Mapping[int, Encoded]) -> Conds:
        """The conds with each learnable prompt's entries showing `texts[id(prompt)]`."""
        conds = {key: list(entries) for key, entries in self.plain.items()}
        for entry in self.entries:
            text = texts[id(entry.cond[PAYLOAD])]
            model_conds = self._process(_with_text(entry.cond, text), entry.key)
            for key, index in entry.places:
                place = conds[key][index]
                conds[key][index] = {**place, "model_conds": {**place["model_conds"], **model_conds}}
        return conds

    def _process(self, cond: Cond, key: str) -> Cond:
        context = dict(self.context)
        noise, device = context.pop("noise"), context.pop("device")
        extra_conds = self.guider.inner_model.extra_conds
        [done] = comfy.samplers.encode_model_conds(extra_conds, [cond], noise, device, key, **context)
        return done["model_conds"]


def without_gradient(text: Encoded) -> Encoded:
    """The same encoding, cut off from its graph."""
    extras = {key: value.detach() if isinstance(value, Tensor) else value for key, value in text.extras.items()}
    return replace(text, cond=text.cond.detach(), extras=extras)
