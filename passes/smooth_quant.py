"""Outlier channels of activations made smaller, their weights larger by as much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.edits import Edit, FoldChannels, Remark
from edgevit.errors import UsageError
from edgevit.passes.channel_folds import FoldSite
from edgevit.passes.channel_ranges import ChannelRange
from edgevit.passes.choose_ranges import split
from edgevit.passes.codes_loss import codes_loss
from edgevit.passes.facts import Array
from edgevit.passes.fold_channels import FoldPass, Place, fold_all, gain_db, places
from edgevit.passes.fold_gains import look, with_gains
from edgevit.pipeline import Context

__all__ = ["SmoothQuant", "smoothing"]

_LIMIT = 1e3  # a channel that hardly moves is not worth more than this factor


@dataclass(frozen=True)
class SmoothQuant(FoldPass):
    """Share the difficulty of a channel between activation and weight.

    ``x' = (x - b) / s``, ``s_c = max|x_c - b_c|^a / max|W_c|^(1-a)``: Xiao et al.,
    "SmoothQuant" (arXiv 2211.10438), eq. 4, with the offset ``b_c`` that centers channel c of
    MPTQ-ViT's SQ-b (Tai et al., arXiv 2401.14895).

    1. The change goes into a norm or a layer in front that only layers read.
    2. With ``explicit``, where there is none (an activation function, a residual), it becomes
       one ``Mul`` (and one ``Add``) of its own.
    3. Depthwise readers have a scale for every channel anyway: they take all of it (a = 1).
    4. No offset where a reader pads.
    5. With ``far``, only a network is changed whose output the device's codes of activations
       put further off than that, on samples that are kept out, and less far for the change:
       operators of their own cost time, and what is good for most layers need not be for the
       network (ViT-S/14 on LiteRT: .08 nats, .11 with folds into norms).

    Attributes:
        alpha: Share of the activation; 0.5 splits evenly.
        bias: Whether channels are centered.
        explicit: Case 2.
        least: Smallest predicted gain in decibels for which an explicit change is made.
        far: Case 5, nats a sample; 0: the change is made in any case.
        powers: Whether scales are powers of two, whose multiplications are shifts.
    """

    name: ClassVar[str] = "smooth-quant"

    alpha: float = 0.5
    bias: bool = True
    explicit: bool = False
    least: float = 1.0
    far: float = 0.0
    powers: bool = False

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """Choose scale and offset of every site from the ranges of its channels."""
        if not 0.0 <= self.alpha <= 1.0:
            raise UsageError(f"{self.name}: alpha expects 0 to 1, found {self.alpha}")
        if self.far < 0:
            raise UsageError(f"{self.name}: far expects nats, 0 and more, found {self.far}")
        if self.far:
            return self._where_far(model, context)
        return self._changes(model, context)

    def _where_far(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """Case 5, and what it found."""
        before = codes_loss(model, context, str(self))
        if before is None:
            return (Remark("channels as they are: too few samples to judge by"),)
        off = f"activations in codes are {before:.3g} nats off on samples kept out"
        if before <= self.far:
            return (Remark(f"channels as they are: {off}"),)
        changed = model.clone()
        seen, _ = split(context.data(str(self)))
        fold_all(changed, self._changes(model, replace(context, samples=seen)), self.name)
        after = codes_loss(changed, context, str(self))
        said = f"{off}, {after:.3g} with channels smoothed"
        if after is None or not after < before:
            return (Remark(f"channels as they are: {said}"),)
        return (*self._changes(model, context), Remark(said))

    def _changes(self, model: ir.Model, context: Context) -> tuple[FoldChannels, ...]:
        found = [p for p in places(model, self.explicit) if isinstance(p, Place)]
        if not found:
            return ()
        seen = look(model, found, context, str(self))
        edits = ((p, self._edit(p, seen.ranges[str(p.site.value.name)])) for p in found)
        return tuple(with_gains(edit, p, seen, 8) for p, edit in edits if edit is not None)

    def _edit(self, place: Place, seen: ChannelRange) -> FoldChannels | None:
        site = place.site
        scale, offset = smoothing(site, seen, self.alpha, self.bias and site.shifts)
        scale = np.exp2(np.rint(np.log2(scale))) if self.powers else scale
        gain = _gain(site, seen, scale, offset)
        own = site.norm is None and site.layer is None
        if own and gain < self.least:
            return None
        detail = f"noise of activations, predicted: {-gain:+.1f} dB"
        return FoldChannels(place.layer.name, scale, offset, own, detail)


def smoothing(
    site: FoldSite, seen: ChannelRange, alpha: float, shifts: bool
) -> tuple[Array, Array]:
    """Scale and offset of every channel, float64 ``[C]``; scales have geometric mean 1."""
    offset = (seen.low + seen.high) / 2 if shifts else np.zeros_like(seen.low)
    peak = np.maximum(np.abs(seen.high - offset), np.abs(seen.low - offset))
    weight = np.max([reader.input_peaks() for reader in site.readers], axis=0)
    share = 1.0 if all(reader.depthwise for reader in site.readers) else alpha
    alive = (peak > 0) & (weight > 0)
    if not alive.any():
        return np.ones_like(peak), offset
    logs = np.zeros_like(peak)
    logs[alive] = share * np.log(peak[alive]) - (1 - share) * np.log(weight[alive])
    logs[alive] -= logs[alive].mean()
    bound = np.log(_LIMIT)
    return np.exp(np.clip(logs, -bound, bound)), offset


def _gain(site: FoldSite, seen: ChannelRange, scale: Array, offset: Array) -> float:
    before = np.full(len(scale), _extent(seen.low, seen.high))
    after = _extent((seen.low - offset) / scale, (seen.high - offset) / scale)
    return gain_db(site, before, scale * after)


def _extent(low: Array, high: Array) -> float:
    return float(max(high.max(), 0.0) - min(low.min(), 0.0))
