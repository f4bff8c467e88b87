"""Scales and zero points of single channels behind a norm, into the norm and what reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.channel_observer import ChannelObserver
from edgevit.edits import Edit, FoldChannels
from edgevit.errors import UsageError
from edgevit.passes.channel_folds import FoldSite
from edgevit.passes.channel_ranges import ChannelRange
from edgevit.passes.facts import Array
from edgevit.passes.fold_channels import FoldPass, Place, gain_db, places
from edgevit.passes.fold_gains import look, with_gains
from edgevit.passes.layer_rows import Seen
from edgevit.pipeline import Context, Refusal
from edgevit.ranges import channel_spans

__all__ = ["FoldNormScales", "norm_scales"]

_COLLAPSE: Mapping[str, Callable[[Array], Any]] = {"mean": np.mean, "median": np.median}
# Channels that hardly move get no more than this share of the common step.
_SMALLEST = 1e-3


@dataclass(frozen=True)
class FoldNormScales(FoldPass):
    """Quantize the output of a normalization channel by channel, at the cost of one scale.

    ``W Norm(x; g, b) + c``  ->  ``(W r) Norm(x; g / r, (b - o) / r) + (c + W o)``

    with ``s_c, z_c`` the step and zero point that channel c would like, ``s, z`` the ones that
    all get, ``r_c = s_c / s`` and ``o_c`` such that every channel fills the same codes: Li,
    Xiao, Yang and Gu, "RepQ-ViT" (arXiv 2212.08254). ``collapse=median`` takes the median
    step instead of the mean one (Yang et al., "DopQ-ViT", arXiv 2408.03291).

    1. All readers are layers with constant weights, through layout changes at most.
    2. Where a reader pads, steps are folded and zero points are not: padding is zero in the
       old units.

    Attributes:
        collapse: ``mean`` or ``median`` of the channels' steps and zero points.
        bits: Width of the codes the zero points are meant for.
        percentile: Share of a channel's elements that its range keeps on each side, in
            percent; below 100 outliers do not stretch it (Ranjan and Savakis, "LRP-QViT",
            arXiv 2401.11243, clips before the fold).
    """

    name: ClassVar[str] = "fold-norm-scales"

    collapse: str = "mean"
    bits: int = 8
    percentile: float = 100.0

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """Choose ``r`` and ``o`` of every norm from the ranges of its channels."""
        self._check()
        found = [p for p in places(model, False) if isinstance(p, Place) and p.site.norm]
        if not found:
            return ()
        watched = {
            str(p.site.value.name): ChannelObserver(p.site.axis)
            for p in found
            if self.percentile < 100.0
        }
        seen = look(model, found, context, str(self), watched)
        ranges = {**seen.ranges, **{n: self._clipped(n, seen, o) for n, o in watched.items()}}
        edits = ((p, self._edit(p, ranges[str(p.site.value.name)])) for p in found)
        return tuple(with_gains(edit, p, seen, self.bits) for p, edit in edits)

    def _check(self) -> None:
        if self.collapse not in _COLLAPSE:
            raise UsageError(
                f"{self.name}: collapse expects mean or median, found {self.collapse!r}"
            )
        if not 50.0 < self.percentile <= 100.0:
            raise UsageError(
                f"{self.name}: percentile expects 50 to 100, found {self.percentile}"
            )

    def _clipped(self, name: str, seen: Seen, observer: ChannelObserver) -> ChannelRange:
        span = channel_spans(observer.result(), self.percentile)
        return replace(seen.ranges[name], low=span.low, high=span.high)

    def refusals(self, model: ir.Model) -> tuple[Refusal, ...]:
        """Norms that something else than layers reads."""
        return tuple(
            Refusal(self.name, r.node, r.reason)
            for r in places(model, False)
            if isinstance(r, Refusal) and "read by" in r.reason
        )

    def _edit(self, place: Place, seen: ChannelRange) -> FoldChannels:
        scale, offset = norm_scales(seen, self.collapse, self.bits, place.site.shifts)
        gain = _gain(place.site, seen, scale, offset, self.bits)
        detail = f"noise of activations at {self.bits} bits, predicted: {-gain:+.1f} dB"
        return FoldChannels(place.layer.name, scale, offset, detail=detail)


def norm_scales(
    seen: ChannelRange, collapse: str, bits: int, shifts: bool
) -> tuple[Array, Array]:
    """Scale and offset of every channel, float64 ``[C]``.

    Args:
        seen: Ranges over calibration data.
        collapse: ``mean`` or ``median``.
        bits: Width of the codes.
        shifts: Whether an offset is possible; without, ranges are widened to both signs
            alike, since a common zero point must suit them all.
    """
    levels = 2**bits - 1
    middle = _COLLAPSE[collapse]
    low, width = seen.low, seen.width
    if not shifts:
        low, width = -np.maximum(-low, seen.high), 2 * np.maximum(-low, seen.high)
    typical = float(middle(width))
    if typical <= 0:
        return np.ones_like(width), np.zeros_like(width)
    step = np.maximum(width, _SMALLEST * typical) / levels
    common = float(middle(step))
    scale = step / common
    if not shifts:
        return scale, np.zeros_like(scale)
    zero = np.clip(-low / step, 0, levels)
    return scale, low + float(np.rint(middle(zero))) * step


def _gain(site: FoldSite, seen: ChannelRange, scale: Array, offset: Array, bits: int) -> float:
    levels = 2**bits - 1
    before = np.full(len(scale), _extent(seen.low, seen.high) / levels)
    low, high = (seen.low - offset) / scale, (seen.high - offset) / scale
    return gain_db(site, before, scale * (_extent(low, high) / levels))


def _extent(low: Array, high: Array) -> float:
    """Width of the range that one scale for all channels covers; zero is in it."""
    return float(max(high.max(), 0.0) - min(low.min(), 0.0))
