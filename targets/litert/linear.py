"""Matrix products and attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.attributes import attribute, data_of, optional
from edgevit.targets.litert.context import Context, permuted
from edgevit.targets.litert.elementwise import fused
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.kernels import kernel
from edgevit.targets.litert.rules import Rule, identity_perm
from edgevit.targets.litert.table import Op, all_of, floats, rank, scalar
from edgevit.targets.neighbors import is_linear

__all__ = ["OPS", "products"]

_MAX_RANK = 5  # of BATCH_MATMUL with broadcasting
_PRODUCTS = Rule("products")
_LINEAR = Rule("same", last="last", data=1)


def _rule(group: Group) -> Rule:
    return _LINEAR if is_linear(group.head) else _PRODUCTS


def _linear(ctx: Context, group: Group) -> None:
    """FULLY_CONNECTED takes the weight as [N, K] and any leading axes of the data."""
    x, w = data_of(group.head), data_of(group.head, 1)
    k, n = shape_of(w)
    shape = permuted(shape_of(x), ctx.perm)
    tensor = ctx.read(x, ctx.perm, shape if len(shape) > 1 else (1, k))
    weight = kernel(ctx, group.head, lambda a: np.ascontiguousarray(a.T), 0)
    inputs = [tensor, weight]
    bias = constant(group.bias)
    if bias is not None:
        inputs.append(ctx.weight(f"{group.bias and group.bias.name}", bias.reshape(n)))
    options = schema.FullyConnectedOptionsT(
        fusedActivationFunction=fused(group.activation), keepNumDims=True
    )
    out = (*shape[:-1], n) if len(shape) > 1 else (1, n)
    version = 5 if bias is not None else 6
    version = 12 if ctx.writer.dtype(weight) != "float32" else version
    ctx.result("FULLY_CONNECTED", inputs, options=options, version=version, shape=out)


def _swapped(rank: int) -> tuple[int, ...]:
    plain = identity_perm(rank)
    return (*plain[:-2], rank - 1, rank - 2)


def _right(ctx: Context, value: ir.Value, dims: int) -> tuple[int, bool]:
    """The right operand with ``dims`` axes, and whether its last two come swapped."""
    own = len(shape_of(value))
    if own == 1:
        shape = (*(1,) * (dims - 2), *shape_of(value), 1)
        return ctx.read(value, None, shape), False
    if value.const_value is not None:
        return ctx.read(value, None, (1,) * (dims - own) + shape_of(value)), False
    tensor, perm = ctx.read_any(value, (identity_perm(own), _swapped(own)))
    shape = (1,) * (dims - own) + permuted(shape_of(value), perm)
    return ctx.reshape(tensor, shape), perm != identity_perm(own)


def products(ctx: Context, a: ir.Value, b: ir.Value) -> tuple[list[int], Any, tuple[int, ...]]:
    """Operands, options and result's shape of BATCH_MATMUL."""
    dims = max(2, len(shape_of(a)), len(shape_of(b)))
    left = (1,) * (dims - len(shape_of(a))) + shape_of(a)
    lhs = ctx.read(a, None, left)
    rhs, adjoint = _right(ctx, b, dims)
    right = ctx.writer.shape(rhs)
    columns = right[-2] if adjoint else right[-1]
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    options = schema.BatchMatMulOptionsT(adjX=False, adjY=adjoint)
    return [lhs, rhs], options, (*batch, left[-2], columns)


def _products(ctx: Context, group: Group) -> None:
    inputs, options, shape = products(ctx, data_of(group.head), data_of(group.head, 1))
    ctx.result("BATCH_MATMUL", inputs, options=options, shape=shape)


def _matmul(ctx: Context, group: Group) -> None:
    (_linear if is_linear(group.head) else _products)(ctx, group)


def _matmul_rank(node: ir.Node) -> str | None:
    ranks = [len(shape_of(v)) for v in node.inputs if v is not None]
    if is_linear(node) or max(ranks) <= _MAX_RANK:
        return None
    return f"rank {max(ranks)}: BATCH_MATMUL takes at most {_MAX_RANK}"


def _attention(ctx: Context, group: Group) -> None:
    """softmax(scale q k^T + mask) v; the scale goes to q, the smallest of the tensors.

    The query heads that share a head of k and v are neighbors: as one head with their rows
    below each other they meet it in one product.
    """
    q, k, v = (data_of(group.head, i) for i in range(3))
    b, h, s, d = shape_of(q)
    shared, t, e = shape_of(v)[1:]
    stacked = (b, shared, h // shared * s)
    query = ctx.read(q, None, (*stacked, d))
    scale = attribute(group.head, "scale", d**-0.5)
    if scale != 1.0:
        factor = scalar(ctx, scale)
        options = schema.MulOptionsT()
        query = ctx.emit("MUL", [query, factor], (*stacked, d), options=options)
    # K is wanted as [D, T]: for K [T, D] that is the adjoint, so prefer what lies there.
    keys, adjoint = _right(ctx, k, 4)
    product = schema.BatchMatMulOptionsT(adjX=False, adjY=not adjoint)
    scores = ctx.emit("BATCH_MATMUL", [query, keys], (*stacked, t), options=product)
    mask = optional(group.head, 3)
    if mask is not None:
        added = [ctx.reshape(scores, (b, h, s, t)), ctx.read(mask)]
        scores = ctx.emit("ADD", added, (b, h, s, t), options=schema.AddOptionsT())
        scores = ctx.reshape(scores, (*stacked, t))
    soft = schema.SoftmaxOptionsT(beta=1.0)
    weights = ctx.emit("SOFTMAX", [scores], (*stacked, t), options=soft)
    values, swapped = _right(ctx, v, 4)
    options = schema.BatchMatMulOptionsT(adjX=False, adjY=swapped)
    plain = identity_perm(4)
    ctx.result(
        "BATCH_MATMUL", [weights, values], options=options, perm=plain, shape=(*stacked, e)
    )


_EXTRAS = ("is_causal", "softcap", "q_num_heads", "kv_num_heads", "qk_matmul_output_mode")


def _bare(node: ir.Node) -> str | None:
    """What changes the function beyond the canonical attention."""
    for name in _EXTRAS:
        if attribute(node, name, 0):
            return f"attribute {name} is not canonical (docs/canonical.md)"
    mask = optional(node, 3)
    if mask is not None and dtype_of(mask).name != "float32":
        return f"the mask is {dtype_of(mask).name}, not added"
    return "past keys and values are not canonical" if len(node.inputs) > 4 else None


def _heads(node: ir.Node) -> str | None:
    q, k, v = (shape_of(data_of(node, i))[1] for i in range(3))
    return None if k == v and q % k == 0 else f"{q} heads do not share {k} keys, {v} values"


OPS = {
    "MatMul": Op(_matmul, _rule, all_of(floats, _matmul_rank)),
    "Attention": Op(_attention, _PRODUCTS, all_of(floats, rank(4), _heads, _bare)),
}
_: Mapping[str, Op] = OPS
