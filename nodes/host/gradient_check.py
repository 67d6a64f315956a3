"""Is a gradient right? Slopes by autograd beside slopes by central differences, with what rounding allows to tell.

For a function f of tensors a, random directions u and a random weighting w of its outputs,

    <J^T w, u>   by autograd   =   d/dt <w, f(a + t u)>   at t = 0, by differences.

Along random directions, because along the gradient itself nothing shows that a part of it is missing: its length is the
slope along itself, whatever is left of it.

How far differences can be trusted is measured: two step widths tell what is curved or kinked between them, and what is
left of the fourth difference is rounding, as in fp16 and bf16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Function = Callable[[list[Tensor]], list[Tensor]]
Verdict = Literal["agrees", "disagrees", "cannot tell"]

TOLERANCE = 0.01  # autograd's and differences' own, beyond what is measured
COARSE = 0.15  # what is known less exactly than this cannot be told
FINE = 0.02  # when it is known this well, no other step width is tried
# Widths of the steps in units of the inputs' root mean square: first those that suit fp32, or half precision.
STEPS = {False: (4e-3, 3e-2, 5e-4), True: (3e-2, 0.12, 8e-3)}
# The five-point stencil f(-2), f(-1), f(1), f(2): the derivative, and the fourth difference with f(0).
_FOURTH = {-2: 1.0, -1: -4.0, 1: -4.0, 2: 1.0}
_FOURTH_OF_NOISE = math.sqrt(70.0)  # standard deviation of a fourth difference of noise of deviation 1
_SLOPE_OF_NOISE = math.sqrt(130.0) / 12.0  # of the derivative, at step width 1


@dataclass(frozen=True)
class Agreement:
    """Whether a gradient is what differences find.

    Attributes:
        verdict: "cannot tell" if differences are too noisy here to see an error of `COARSE`.
        error: greatest disagreement of a slope, as a share of the slopes' root mean square.
        resolution: the share that rounding and curvature account for.
        remark: more, in words.
    """

    verdict: Verdict
    error: float
    resolution: float
    remark: str = ""


@dataclass(frozen=True)
class _Probe:
    """One comparison. line: direction u of the inputs. weights: w of the outputs. gradients: J^T w by autograd.
    rounding: error of <J^T w, u>."""

    line: list[Tensor]
    weights: list[Tensor]
    gradients: list[Tensor]
    rounding: float = 0.0


def check_part(
    function: Function, at: Sequence[Tensor], generator: torch.Generator, half: bool = False, num_lines: int = 2
) -> Agreement:
    """Compare vector-Jacobian products of a part of the model with differences of that part alone.

    Weightings of the outputs are random first, which shows any error. Where rounding drowns that they are the outputs'
    own response to the line, which stands out from rounding by the root of their number, and still shows what is
    missing.

    Args:
        function: its outputs for its inputs, differentiable. at: inputs (any shapes). generator: on the CPU.
        half: it computes in half precision. num_lines: each takes four evaluations or more.
    """
    at = [tensor.detach().float() for tensor in at]
    found = Agreement("cannot tell", math.inf, math.inf)
    if not half:
        found = _check(function, at, _random_probes(function, at, num_lines, generator), half)
    if found.verdict == "cannot tell" and not found.remark:
        found = _check(function, at, _aligned_probes(function, at, 2, generator), half)
    return found


def check_gradient(
    function: Callable[[list[Tensor]], Tensor],
    at: Sequence[Tensor],
    gradients: Sequence[Tensor],
    generator: torch.Generator,
    half: bool = False,
) -> Agreement:
    """Compare a gradient that is given with differences, along a line that is half itself and half random.

    Args:
        function: a scalar. at: its inputs (any shapes). gradients: for them. generator: on the CPU.
        half: it computes in half precision.
    """
    at = [tensor.detach().float() for tensor in at]
    one = [torch.ones((), dtype=torch.float32, device=at[0].device)]
    probes = [_Probe(line, one, list(gradients)) for line in _lines(gradients, 1, generator)]
    return _check(lambda moved: [function(moved)], at, probes, half)


def _random_probes(function: Function, at: list[Tensor], count: int, generator: torch.Generator) -> list[_Probe]:
    with torch.enable_grad():
        inputs = [tensor.clone().requires_grad_() for tensor in at]
        outputs = function(inputs)
        weights = [_noise(output, generator) for output in outputs]
        gradients = _vector_jacobian(outputs, weights, inputs, keep=False)
    return [_Probe(line, weights, gradients) for line in _lines(gradients, count, generator)]


def _aligned_probes(function: Function, at: list[Tensor], count: int, generator: torch.Generator) -> list[_Probe]:
    found = []
    with torch.enable_grad():
        inputs = [tensor.clone().requires_grad_() for tensor in at]
        outputs = function(inputs)
        for _ in range(count):
            line = [_noise(tensor, generator) for tensor in at]
            # Evaluated at no other place, so that its rounding is its own.
            weights = _response(function, at, line, 3 * STEPS[True][0] * _unit(at))
            gradients = _vector_jacobian(outputs, weights, inputs, keep=True)
            # Once more, rounded in other places: what differs is the backward pass's own rounding.
            again = _vector_jacobian(outputs, [1.37 * weight for weight in weights], inputs, keep=True)
            rounding = abs(_dot(again, line) / 1.37 - _dot(gradients, line))
            found.append(_Probe(line, weights, gradients, rounding))
    return found


@torch.no_grad()
def _response(function: Function, at: list[Tensor], line: list[Tensor], width: float) -> list[Tensor]:
    """How the outputs change along a line, with a root mean square of 1."""
    ahead, behind = (function(_moved(at, line, side * width)) for side in (1, -1))
    change = [a.float() - b.float() for a, b in zip(ahead, behind, strict=True)]
    size = _unit(change)
    return [part / size for part in change]


@torch.no_grad()
def _check(function: Function, at: list[Tensor], probes: list[_Probe], half: bool) -> Agreement:
    """Several step widths; the one at which the slopes are known best counts."""
    if not all(bool(torch.isfinite(gradient).all()) for probe in probes for gradient in probe.gradients):
        return Agreement("disagrees", math.inf, 0.0, "the gradient is not finite (NaN or infinity)")
    base = [output.float() for output in function(at)]
    best: Agreement | None = None
    for step in STEPS[half]:
        found = [_slope(function, at, probe, step * _unit(at), base) for probe in probes]
        judged = _judge(probes, found)
        if best is None or judged.resolution < best.resolution:
            best = judged
        if best.resolution < FINE:
            break
    assert best is not None
    return best


@dataclass(frozen=True)
class _Slope:
    """By differences. noise: its standard deviation from rounding. doubt: its change with the step width."""

    value: float
    noise: float
    doubt: float


def _slope(function: Function, at: list[Tensor], probe: _Probe, step: float, base: list[Tensor]) -> _Slope:
    weights, values = probe.weights, {}
    fourth = [6 * output for output in base]
    for times, coefficient in _FOURTH.items():
        moved = function(_moved(at, probe.line, times * step))
        values[times] = _dot(weights, moved)
        fourth = [total + coefficient * output.float() for total, output in zip(fourth, moved, strict=True)]
    near = (values[1] - values[-1]) / (2 * step)
    far = (values[2] - values[-2]) / (4 * step)
    # As if outputs were rounded independently of each other, and as it shows: the greater of both.
    left = max(abs(_dot(weights, fourth)), _unit(fourth) * math.sqrt(_dot(weights, weights)))
    noise = left / _FOURTH_OF_NOISE * _SLOPE_OF_NOISE / step
    return _Slope((4 * near - far) / 3, noise, abs(near - far) / 3)


def _judge(probes: list[_Probe], found: list[_Slope]) -> Agreement:
    autograd, slopes = [_dot(probe.gradients, probe.line) for probe in probes], [slope.value for slope in found]
    if not all(math.isfinite(slope.value) and math.isfinite(slope.noise) for slope in found):
        return Agreement("cannot tell", math.inf, math.inf, "the result is not finite (NaN or infinity)")
    scale = max(_rms(autograd), _rms(slopes))
    if scale == 0:
        return Agreement("cannot tell", 0.0, math.inf, "it changes nothing: every slope is 0")
    error = max(abs(a - s) for a, s in zip(autograd, slopes, strict=True)) / scale
    rounding = max(probe.rounding for probe in probes)
    blur = 3 * _rms([slope.noise for slope in found]) + max(slope.doubt for slope in found) + 3 * rounding
    resolution = blur / scale
    if error > TOLERANCE + resolution:
        return Agreement("disagrees", error, resolution)
    return Agreement("agrees" if resolution <= COARSE else "cannot tell", error, resolution)


def _vector_jacobian(outputs: list[Tensor], weights: list[Tensor], inputs: list[Tensor], keep: bool) -> list[Tensor]:
    """J^T w; zeros for inputs that nothing depends on. keep: the graph."""
    pairs = [(out, weight.to(out.dtype)) for out, weight in zip(outputs, weights, strict=True) if out.requires_grad]
    if not pairs:
        return [torch.zeros_like(tensor) for tensor in inputs]
    given, cotangents = zip(*pairs, strict=True)
    found = torch.autograd.grad(given, inputs, cotangents, retain_graph=keep, allow_unused=True)
    return [torch.zeros_like(i) if g is None else g.float() for g, i in zip(found, inputs, strict=True)]


def _moved(at: list[Tensor], line: list[Tensor], distance: float) -> list[Tensor]:
    return [tensor + distance * part for tensor, part in zip(at, line, strict=True)]


def _unit(tensors: Sequence[Tensor]) -> float:
    """Root mean square of all values; 1 where all are 0."""
    return math.sqrt(_dot(tensors, tensors) / sum(tensor.numel() for tensor in tensors)) or 1.0


def _lines(gradients: Sequence[Tensor], count: int, generator: torch.Generator) -> list[list[Tensor]]:
    """Half along a gradient, so that there is a slope, and half random, which sees what is missing from it."""
    length = math.sqrt(_dot(gradients, gradients))
    known = math.isfinite(length) and length > 0
    lines = []
    for _ in range(count):
        line = [_noise(gradient, generator) for gradient in gradients]
        if known:
            side = math.copysign(1.0, _dot(gradients, line))
            line = [gradient / length + side * part for gradient, part in zip(gradients, line, strict=True)]
        lines.append(line)
    return lines


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """N(0, 1), the same on every device."""
    return torch.randn(like.shape, generator=generator).to(like.device)


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))
