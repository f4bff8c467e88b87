"""Weights of convolutions and linear layers: floats, or the codes that the model stores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.quantizers import Stored, quantized_as_run, stored
from edgevit.targets.attributes import data_of
from edgevit.targets.litert.context import Array, Context
from edgevit.targets.litert.writer import parameters

__all__ = ["codes_kernel", "kernel", "widened"]

Arrange = Callable[[Array], Array]
_DEQUANTIZE = 5  # the version that knows scales of channels


def kernel(
    ctx: Context, node: ir.Node, arrange: Arrange, axis: int, *, hybrid: bool = True
) -> int:
    """The weight of an operator on floats.

    Args:
        ctx: Of the emission.
        node: The operator; its second operand is constant, stored as numbers or as codes.
        arrange: Brings it into the operator's form.
        axis: Where the output channels are after that.
        hybrid: Whether XNNPACK has a kernel of this operator that quantizes activations as
            it runs.

    Returns:
        A float tensor; codes themselves where the kernel quantizes activations as it runs.
    """
    value = data_of(node, 1)
    found, array = stored(value), constant(value)
    if found is None:
        if array is None:
            raise ValueError(f"the weight {value.name!r} is not constant")
        return ctx.weight(f"{value.name}", arrange(array))
    tensor = codes_kernel(ctx, found, arrange, axis)
    as_run = ctx.dynamic or quantized_as_run(node)
    if hybrid and as_run and found.quantizer.symmetric:
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
