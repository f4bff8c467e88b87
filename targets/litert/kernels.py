"""Weights of convolutions and linear layers: floats, or the codes that the model stores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.quantizers import Stored, stored
from edgevit.targets.litert.context import Array, Context
from edgevit.targets.litert.writer import parameters

__all__ = ["codes_kernel", "kernel", "widened"]

Arrange = Callable[[Array], Array]
_DEQUANTIZE = 5  # the version that knows scales of channels


def kernel(
    ctx: Context, value: ir.Value, arrange: Arrange, axis: int, *, hybrid: bool = True
) -> int:
    """The weight of an operator on floats.

    Args:
        ctx: Of the emission.
        value: A constant, stored as numbers or as codes.
        arrange: Brings it into the operator's form.
        axis: Where the output channels are after that.
        hybrid: Whether XNNPACK has a kernel of this operator that quantizes activations as
            it runs.

    Returns:
        A float tensor; codes themselves where the engine quantizes activations as it runs.
    """
    found, array = stored(value), constant(value)
    if found is None:
        if array is None:
            raise ValueError(f"the weight {value.name!r} is not constant")
        return ctx.weight(f"{value.name}", arrange(array))
    tensor = codes_kernel(ctx, found, arrange, axis)
    if hybrid and ctx.dynamic and found.quantizer.symmetric:
        return tensor
    return widened(ctx, value, tensor)


def widened(ctx: Context, value: ir.Value, tensor: int) -> int:
    """The numbers of a constant tensor of codes."""
    wide = ctx.writer.tensor(f"{value.name}", ctx.writer.shape(tensor), "float32")
    ctx.writer.operator("DEQUANTIZE", [tensor], [wide], version=_DEQUANTIZE)
    return wide


def codes_kernel(ctx: Context, found: Stored, arrange: Arrange, axis: int) -> int:
    """A constant tensor of the codes themselves."""
    q = found.quantizer
    codes = np.ascontiguousarray(arrange(found.codes))
    params = parameters(q.scale, q.zero_point, None if q.axis is None else axis)
    return ctx.writer.codes(found.name, codes, q.dtype.name.lower(), params)
