"""Layers with stored weights whose data are quantized as the model runs, row by row.

Each row of the data gets a scale of its own from its largest magnitude; products are exact
sums of codes in int32, worth the row's step times the column's scale. Only linear layers and
1x1 convolutions have rows: the device files leave other layers in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgevit.model import shape_of
from edgevit.quantizers import Stored, dequantizer
from edgevit.targets.attributes import data_of, optional, whole
from edgevit.targets.neighbors import is_linear
from edgevit.targets.tvm.context import Context, Rows
from edgevit.targets.tvm.kernels.arithmetic import QUAD, Arithmetic, integer, pack_integers
from edgevit.targets.tvm.kernels.gemm import Gemm
from edgevit.targets.tvm.kernels.rows import QuantizeRows
from edgevit.targets.tvm.ops_integer import narrow, packed_refs
from edgevit.targets.tvm.program import Ref
from edgevit.targets.tvm.strides import CHANNELS_LAST, Held, dense
from edgevit.targets.tvm.table import integers
from edgevit.targets.tvm.tails import Tail, tail
from edgevit.targets.tvm.tiles import product_name
from edgevit.targets.views import View

__all__ = ["dynamic_conv", "dynamic_linear"]


def _weight(ctx: Context, node: ir.Node, axis: int) -> Stored | None:
    """The stored weight, if its codes can be multiplied with codes made at run time."""
    if not ctx.dynamic or dequantizer(node.inputs[0]) is not None:
        return None
    return narrow(node.inputs[1], axis)


def dynamic_linear(ctx: Context, node: ir.Node) -> bool:
    """Lower a linear layer; ``False`` if it is none with a stored weight."""
    weight = _weight(ctx, node, 1) if is_linear(node) else None
    if weight is None:
        return False
    x, n = data_of(node), weight.codes.shape[1]
    rows, steps = _coded(ctx, x, len(shape_of(x)) - 1, lambda: ctx.rows(x))
    view = rows.view(n)
    after = tail(ctx, node, view, scaled=True, by_row=True)
    _multiplied(ctx, weight, weight.codes, rows, steps, view, after)
    return True


def dynamic_conv(ctx: Context, node: ir.Node) -> bool:
    """Lower a 1x1 convolution; ``False`` if it is none with a stored weight."""
    weight = _weight(ctx, node, 0)
    if weight is None or not _pointwise(node, weight):
        return False
    x = data_of(node)
    n, c, h, w = shape_of(x)

    def pixels() -> Rows:
        held = ctx.copied(ctx.read(x), (n, c, h, w), CHANNELS_LAST)
        return Rows(held.ref, n * h * w, c, ())

    rows, steps = _coded(ctx, x, 1, pixels)
    view = dense(shape_of(node.outputs[0]), CHANNELS_LAST)
    after = tail(ctx, node, view, biased=optional(node, 2), scaled=True, by_row=True)
    _multiplied(ctx, weight, weight.codes.reshape(-1, c).T, rows, steps, view, after)
    return True


def _pointwise(node: ir.Node, weight: Stored) -> bool:
    plain = whole(node, "group", 1) == 1 and not any(integers(node, "pads"))
    return plain and set(weight.codes.shape[2:]) | set(integers(node, "strides")) == {1}


def _zero(kind: Arithmetic) -> int:
    """Code of 0."""
    return 128 if kind.left == "uint8" else 0


def _coded(
    ctx: Context, x: ir.Value, axis: int, rows_of: Callable[[], Rows]
) -> tuple[Rows, Ref]:
    """The codes of a value's rows along an axis, and each row's step; made once."""
    key = (x, axis)
    if key not in ctx.coded:
        ctx.coded[key] = _quantized(ctx, rows_of(), shape_of(x)[axis], x.name or "")
    return ctx.coded[key]


def _quantized(ctx: Context, rows: Rows, columns: int, label: str) -> tuple[Rows, Ref]:
    """The codes of float rows, their length a multiple of four, and each row's step."""
    kind = integer(ctx.machine)
    width = columns + -columns % QUAD
    kernel = QuantizeRows(rows.count, columns, rows.stride, width, _zero(kind), kind.left)
    codes = ctx.new(f"{label}/codes", rows.count * width, kind.left)
    steps = ctx.new(f"{label}/steps", rows.count)
    ctx.program.call(kernel, Ref(codes), Ref(steps), rows.ref)
    return Rows(Ref(codes), rows.count, width, rows.lead), Ref(steps)


def _multiplied(
    ctx: Context,
    weight: Stored,
    codes: np.ndarray,
    rows: Rows,
    steps: Ref,
    view: View,
    after: Tail,
) -> None:
    """The product of coded rows with codes [K, N], in place of the tail's value."""
    kind, n = integer(ctx.machine), codes.shape[1]
    depth = rows.stride
    name = product_name("gemm", rows.count, n, depth, kind.name)
    columns, most = ctx.tiles.columns(name, n)
    kernel = Gemm(rows.count, depth, columns, depth, n, after.epilogue, kind, most)
    packed, offsets = pack_integers(codes.astype(np.int8), _zero(kind), columns, kind)
    scales = np.broadcast_to(np.asarray(weight.quantizer.scale, np.float32).reshape(-1), (n,))
    made = ctx.new(after.output.name or "", rows.count * n, after.epilogue.dtype)
    ctx.program.call(
        kernel,
        rows.ref,
        *packed_refs(ctx, weight.name, packed, offsets),
        *after.refs(ctx, n, ctx.parameter(f"{weight.name}/scale", scales), steps),
        Ref(made),
    )
    ctx.define(after.output, Held(made, 0, view))
