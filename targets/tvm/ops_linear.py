"""Linear layers, products of two activations, attention."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.targets.neighbors import is_linear
from edgevit.targets.tvm.context import Context
from edgevit.targets.tvm.kernels.gemm import Gemm, layout, pack_b
from edgevit.targets.tvm.program import Ref
from edgevit.targets.tvm.strides import Held
from edgevit.targets.tvm.table import Op, data_of, floats
from edgevit.targets.tvm.tails import tail

__all__ = ["OPS"]


def _linear(ctx: Context, node: ir.Node) -> None:
    """Rows in the order in which they lie, whatever the leading axes are."""
    x, w = data_of(node), data_of(node, 1)
    weight = constant(w)
    if weight is None:
        raise ValueError(f"node {node.name!r}: the weight is not constant")
    k, n = weight.shape
    rows = ctx.rows(x)
    view = rows.view(n)
    after = tail(ctx, node, view)
    columns = layout(n, ctx.machine)
    kernel = Gemm(rows.count, k, columns, rows.stride, n, after.epilogue)
    packed = ctx.parameter(w.name or "", pack_b(np.asarray(weight), ctx.machine))
    made = ctx.new(after.output.name or "", rows.count * n)
    ctx.program.call(kernel, rows.ref, packed, *after.refs(ctx, n), Ref(made))
    ctx.define(after.output, Held(made, 0, view))


def _matmul(ctx: Context, node: ir.Node) -> None:
    if is_linear(node):
        _linear(ctx, node)
        return
    raise ValueError("unreachable")


OPS: Mapping[str, Op] = {
    "MatMul": Op(_matmul, floats),
}
