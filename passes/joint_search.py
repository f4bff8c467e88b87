"""Quantization parameters of a layer's input and weight, chosen by the layer's output error.

Rounding noise that a layer averages away costs nothing, and noise in one direction may cost
everything: so candidates are judged where they end up. The input's parameters and the
weight's are searched in turn, a few rounds, each given the other (Lee et al., "Q-HyViT",
arXiv 2303.12557: 100 candidates between 0.01 and 1.2 of the range, 3 rounds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgevit.passes.facts import Array
from edgevit.quantization import QParams, Range, Scheme, fake, parameters

__all__ = ["Format", "Reader", "activation_error", "search_input", "search_weight"]

LEAST, MOST = 0.01, 1.2
COARSE = 15  # with the finer steps around the best of them as close as 100 even ones
FINE = 9
_SKETCH = 48  # directions into which an output error is projected: its length within 15 %


@dataclass(frozen=True)
class Format:
    """What codes may look like.

    Attributes:
        dtype: Stored dtype.
        bits: Fewer bits than the dtype has, or ``None``.
        schemes: Which are tried.
    """

    dtype: str
    bits: int | None
    schemes: tuple[Scheme, ...]


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads the value whose parameters are searched.

    Attributes:
        rows: What is under its filters, float32 ``[g, R, i]``.
        weight: As it is now, float32 ``[g, o, i]``.
        target: What it should give, float32 ``[g, R, o]``.
        importance: Of every output channel, ``[g, o]``, non-negative.
    """

    rows: Array
    weight: Array
    target: Array
    importance: Array

    def sketched(self, rng: np.random.Generator) -> Reader:
        """The same with random mixtures of outputs: as good for sums of squares, and cheap."""
        g, o, _ = self.weight.shape
        root = np.sqrt(self.importance)[:, :, None]
        scaled, aim = self.weight * root, self.target * root.swapaxes(1, 2)
        if o > _SKETCH:
            signs = rng.choice(np.array([-1, 1], np.float32), (g, _SKETCH, o))
            mix = signs / np.float32(np.sqrt(_SKETCH))
            scaled, aim = mix @ scaled, aim @ mix.swapaxes(1, 2)
        flat = np.ones((g, scaled.shape[1]), np.float32)
        return Reader(self.rows, scaled.astype(np.float32), aim.astype(np.float32), flat)

    def error(self, rows: Array) -> float:
        """Weighted mean square error with other rows in the place of the true ones."""
        off = np.square(self.target - rows @ self.weight.swapaxes(1, 2)).mean(axis=1)
        return float((off * self.importance).sum())


def activation_error(readers: Sequence[Reader], params: QParams) -> float:
    """Sum of the readers' errors if the value is quantized so."""
    return sum(reader.error(fake(reader.rows, params)) for reader in readers)


def search_input(
    readers: Sequence[Reader], span: Range, form: Format, rng: np.random.Generator
) -> tuple[QParams, float]:
    """Parameters of a value with the least error in the layers that read it, and that error.

    A common share of both ends of the range first, then each end by itself; symmetric ranges
    have one end.

    Args:
        readers: At least one.
        span: Range of the value, shape ``()``; zero is included.
        form: Dtype, bits and schemes.
        rng: Of the sketches.
    """
    judged = [reader.sketched(rng) for reader in readers]
    wide = span.with_zero()
    one_sided = bool(wide.low >= 0 or wide.high <= 0)
    # Of a range on one side of zero symmetric codes waste half: nothing to compare.
    schemes = form.schemes[:1] if one_sided else form.schemes
    found = [_search(judged, wide, form, scheme) for scheme in schemes]
    return min(found, key=lambda pair: pair[1])


def _search(
    readers: Sequence[Reader], span: Range, form: Format, scheme: Scheme
) -> tuple[QParams, float]:
    low, high = float(span.low), float(span.high)
    if scheme == "symmetric":
        high = max(-low, high)
        low = -high

    def judge(a: float, b: float) -> tuple[float, float, float]:
        made = _of(a * low, b * high, form, scheme)
        return activation_error(readers, made), a, b

    shares = np.geomspace(LEAST, MOST, COARSE)
    best = min(judge(float(s), float(s)) for s in shares)
    ratio = float(shares[1] / shares[0])
    around = np.geomspace(1 / ratio, ratio, FINE)
    if scheme == "symmetric" or low == 0 or high == 0:
        best = min(best, *(judge(best[1] * f, best[1] * f) for f in around.tolist()))
    else:
        best = min(best, *(judge(best[1] * f, best[2]) for f in around.tolist()))
        best = min(best, *(judge(best[1], best[2] * f) for f in around.tolist()))
    return _of(best[1] * low, best[2] * high, form, scheme), best[0]


def _of(low: float, high: float, form: Format, scheme: Scheme) -> QParams:
    span = Range(np.asarray(low, np.float64), np.asarray(high, np.float64))
    return parameters(span, form.dtype, scheme, form.bits)


def search_weight(reader: Reader, given: Array, high: int, rows: Array) -> Array:
    """Scale of every output channel with the least error on given inputs, ``[g, o]``.

    Args:
        reader: The layer: true target.
        given: Its float weight, ``[g, o, i]``.
        high: Largest code; codes are symmetric.
        rows: Inputs as the quantized layer sees them, ``[g, R, i]``.
    """
    peak = np.abs(given).max(axis=2)
    peak = np.where(peak > 0, peak, 1.0)
    best = np.full(peak.shape, np.inf)
    chosen = peak / high
    for share in np.linspace(1.05, 0.35, COARSE):
        scale = (peak * (share / high)).astype(np.float32)[:, :, None]
        made = np.clip(np.rint(given / scale), -high, high) * scale
        off = np.square(reader.target - rows @ made.swapaxes(1, 2)).mean(axis=1)
        chosen = np.where(off < best, scale[..., 0], chosen)
        best = np.minimum(off, best)
    return chosen


def with_weight(reader: Reader, weight: Array) -> Reader:
    """The same reader with another weight, toward the same target."""
    return replace(reader, weight=weight.astype(np.float32))
