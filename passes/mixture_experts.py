"""The two experts of a mixture in numpy, and what the cheap one gets wrong at each token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgevit.passes.facts import Array
from edgevit.passes.mixture_sites import Layer, Site
from edgevit.shift_codes import levels, nearest

__all__ = ["Shifted", "apply", "errors", "int8_layer", "multiplied", "shifted"]


def _gelu(x: Array) -> Array:
    """``x Phi(x)`` with erf to 1.5e-7 (Abramowitz and Stegun, 7.1.26): fast on arrays."""
    z = np.abs(x) * np.float32(np.sqrt(0.5))
    t = 1 / (1 + 0.3275911 * z)
    series = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
    total = np.zeros_like(t)
    for factor in reversed(series):
        total = (total + factor) * t
    erf = np.sign(x) * (1 - total * np.exp(-z * z))
    return np.asarray(0.5 * x * (1 + erf))


def _silu(x: Array) -> Array:
    return np.asarray(x * (0.5 + 0.5 * np.tanh(0.5 * x)))


ACTIVATE: dict[str, Callable[[Array], Array]] = {
    "Gelu": _gelu,
    "Relu": lambda x: np.maximum(x, 0),
    "Silu": _silu,
}
# A channel of zeros, or of numbers so small that its scale would be no normal float32.
_LEAST = -120
_FINER = (0, 1)


@dataclass(frozen=True, eq=False)
class Shifted:
    """A layer of shifts.

    Attributes:
        q: Sums of terms, int32 ``[d, m]``.
        scale: Powers of two, float32 ``[m]``.
        bias: float32 ``[m]``.
    """

    q: Array
    scale: Array
    bias: Array

    def dense(self) -> Layer:
        """The same as a layer of products."""
        return Layer((self.q * self.scale).astype(np.float32), self.bias)


def shifted(site: Site, x: Array, terms: int) -> tuple[Shifted, ...]:
    """The layers of a site as shifts, biases corrected on its tokens ``[n, d]``."""
    made: list[Shifted] = []
    seen = x
    for layer in site.layers:
        q, scale = _codes(layer.weight, terms)
        dense = (q * scale).astype(np.float32)
        # What the mean token loses: E[W x] - E[Q x], both on what reaches this layer.
        wanted = x.mean(0) if seen is x else _inner(site, x).mean(0)
        lost = wanted @ layer.weight - seen.mean(0) @ dense
        bias = (layer.bias + lost).astype(np.float32)
        made.append(Shifted(q, scale, bias))
        if site.activation is not None and seen is x:
            seen = ACTIVATE[site.activation](x @ dense + bias).astype(np.float32)
    return tuple(made)


def _inner(site: Site, x: Array) -> Array:
    first = site.layers[0]
    assert site.activation is not None
    return ACTIVATE[site.activation](x @ first.weight + first.bias).astype(np.float32)


def _codes(weight: Array, terms: int) -> tuple[Array, Array]:
    """The nearest sums of terms, and of a few scales the one with the least error."""
    high = int(levels(terms)[-1])
    peak = np.abs(weight).max(axis=0).astype(np.float64)
    safe = np.where(peak > 0, peak, float(high))
    least = np.full(weight.shape[1], np.inf)
    best = np.zeros(weight.shape, np.int32)
    scale = np.ones(weight.shape[1])
    for finer in _FINER:
        exponent = np.maximum(np.ceil(np.log2(safe / high)) - finer, _LEAST)
        tried = 2.0**exponent
        q = nearest(weight / tried, terms)
        error = np.square(weight - q * tried).sum(axis=0)
        best = np.where(error < least, q, best)
        scale = np.where(error < least, tried, scale)
        least = np.minimum(error, least)
    return best.astype(np.int32), scale.astype(np.float32)


def multiplied(layer: Layer) -> tuple[Array, Array]:
    """int8 codes ``[d, m]`` and scales ``[m]`` of a multiplication expert's weight."""
    peak = np.abs(layer.weight).max(axis=0)
    scale = np.where(peak > 0, peak / 127, 1.0).astype(np.float32)
    return np.clip(np.rint(layer.weight / scale), -127, 127).astype(np.int8), scale


def apply(layers: tuple[Layer, ...], activation: str | None, x: Array) -> Array:
    """One expert on tokens ``[n, d]``."""
    act: Callable[[Array], Array] | None = ACTIVATE[activation] if activation else None
    y = x
    for i, layer in enumerate(layers):
        y = y @ layer.weight + layer.bias
        if act is not None and i + 1 < len(layers):
            y = act(y).astype(np.float32)
    return y


def errors(site: Site, expert: tuple[Layer, ...], x: Array) -> Array:
    """Squared error of an expert at each token, ``[n]``."""
    wanted = apply(site.layers, site.activation, x)
    off = apply(expert, site.activation, x) - wanted
    return np.asarray(np.square(off).sum(axis=1, dtype=np.float64))


def int8_layer(layer: Layer) -> Layer:
    """A layer whose weight has 8 bits."""
    codes, scale = multiplied(layer)
    return Layer(codes * scale, layer.bias)
