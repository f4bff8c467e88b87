"""The two experts of a mixture in numpy, and what the cheap one gets wrong at each token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgevit.passes.compensated_rounding import Order
from edgevit.passes.facts import Array
from edgevit.passes.mixture_sites import Layer, Site
from edgevit.passes.shift_rounding import Form, compensated_grid
from edgevit.quantization import SMALLEST_SCALE

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
_DAMPING = 0.01


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


def shifted(site: Site, x: Array, terms: int, least: float = 0.0) -> tuple[Shifted, ...]:
    """The layers of a site as shifts, fitted to its tokens ``[n, d]``, biases too.

    Args:
        site: The layers.
        x: Its tokens.
        terms: Of a weight.
        least: Smallest scale that the artifact can hold.
    """
    made: list[Shifted] = []
    seen = x
    for layer in site.layers:
        q, scale = _codes(layer.weight, terms, seen, least)
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


def _codes(weight: Array, terms: int, x: Array, least: float) -> tuple[Array, Array]:
    """Sums of terms in which later inputs make good for the error of earlier ones.

    Args:
        weight: ``[d, m]``.
        terms: Of a weight.
        x: What the layer sees, ``[n, d]``; its mean is the bias's to correct.
        least: Smallest scale; the power of two above it is taken.

    Returns:
        int32 ``[d, m]`` and a power of two for each output.
    """
    off = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    hessian = (off.T @ off / len(off))[None]
    order, form = Order.of(hessian, _DAMPING), Form(terms, 4 * terms)
    target = weight.T[None].astype(np.float64)
    codes, grid = compensated_grid(target, hessian, order, form, least)
    return codes[0].T.astype(np.int32), grid.scale.reshape(-1).astype(np.float32)


def multiplied(layer: Layer, least: float = 0.0) -> tuple[Array, Array]:
    """int8 codes ``[d, m]`` and scales ``[m]`` of a multiplication expert's weight."""
    peak = np.abs(layer.weight).max(axis=0)
    scale = np.where(peak > 0, peak / 127, 1.0).astype(np.float32)
    scale = np.maximum(scale, np.float32(max(least, SMALLEST_SCALE)))
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


def int8_layer(layer: Layer, least: float = 0.0) -> Layer:
    """A layer whose weight has 8 bits."""
    codes, scale = multiplied(layer, least)
    return Layer(codes * scale, layer.bias)
