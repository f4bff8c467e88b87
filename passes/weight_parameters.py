"""Parameters of weights: symmetric, one scale a channel, a block or a tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgevit.passes.quantizable import Quantizable
from edgevit.quantization import QParams, Range, codes, parameters
from edgevit.target import QuantScheme

__all__ = ["weight_parameters"]

Array = np.ndarray[Any, Any]
# Shares of the largest magnitude that are tried; the first wins ties.
SHARES = np.linspace(1.0, 0.4, 31)


def weight_parameters(
    array: Array, layer: Quantizable, scheme: QuantScheme, *, per_tensor: bool, search: bool
) -> QParams:
    """Parameters of a layer's weight.

    Args:
        array: The weight.
        layer: Says which axis is which.
        scheme: Dtype, bits, block, least scale.
        per_tensor: One scale for all of it.
        search: Choose each scale by least square error, else by the largest magnitude.
    """
    found = _parameters(array, layer, scheme, per_tensor, search)
    if (found.scale >= scheme.least_scale).all():
        return found
    least = found.scale.dtype.type(scheme.least_scale)
    return replace(found, scale=np.maximum(found.scale, least))


def _parameters(
    array: Array, layer: Quantizable, scheme: QuantScheme, per_tensor: bool, search: bool
) -> QParams:
    bits = scheme.bits_of(layer.node.op_type)
    if per_tensor:
        return _of_rows(array.reshape(1, -1), scheme.weights, bits, search, None)
    if scheme.block and layer.node.op_type == "MatMul":
        return _blockwise(array, layer.contracted_axis, scheme, bits, search)
    axis = layer.channel_axis
    if layer.node.op_type == "ConvTranspose" and layer.grouped:
        # Output channels of a group share the axis with those of the others: one scale.
        return _of_rows(array.reshape(1, -1), scheme.weights, bits, search, None)
    rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    return _of_rows(rows, scheme.weights, bits, search, axis)


def _of_rows(rows: Array, dtype: str, bits: int, search: bool, axis: int | None) -> QParams:
    """One scale a row (per tensor: one row)."""
    peaks = np.abs(rows).max(axis=1).astype(np.float64)
    if search:
        peaks = peaks * _best_shares(rows, peaks, codes(dtype, "symmetric", bits)[1])
    span = Range(-peaks, peaks) if axis is not None else Range(-peaks[0], peaks[0])
    return parameters(span, dtype, "symmetric", bits, axis)


def _best_shares(rows: Array, peaks: Array, high: int) -> Array:
    """For each row the share of its peak with the least square rounding error, ``[rows]``."""
    best = np.full(len(rows), np.inf)
    chosen = np.ones(len(rows))
    wide = rows.astype(np.float32)
    for share in SHARES:
        scale = (np.where(peaks > 0, peaks, 1.0) * share / high).astype(np.float32)[:, None]
        error = np.clip(np.rint(wide / scale), -high, high) * scale - wide
        total = np.einsum("ij,ij->i", error, error)
        better = total < best
        best, chosen = np.where(better, total, best), np.where(better, share, chosen)
    return chosen


def _blockwise(
    array: Array, axis: int, scheme: QuantScheme, bits: int, search: bool
) -> QParams:
    """One scale for each block along the contracted axis and each output channel."""
    length = array.shape[axis]
    block = next(b for b in range(min(scheme.block, length), 0, -1) if length % b == 0)
    count = length // block
    split = array.reshape(*array.shape[:axis], count, block, *array.shape[axis + 1 :])
    rows = np.moveaxis(split, axis + 1, -1)
    made = _of_rows(rows.reshape(-1, block), scheme.weights, bits, search, 0)
    shape = rows.shape[:-1]
    return QParams(
        made.scale.reshape(shape),
        made.zero_point.reshape(shape),
        made.dtype,
        made.low,
        made.high,
        axis,
        block,
    )
