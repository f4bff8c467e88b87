"""MatMul, the linear layer, and attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.targets.coreml.context import Context
from edgevit.targets.coreml.rule import Rule, floats, i32, masks_only

__all__ = ["TABLE", "FusedLinear", "fused_linear"]


def fused_linear(
    node: ir.Node, linear: Callable[[ir.Node], bool] = lambda node: _is_linear(node)
) -> FusedLinear | None:
    """A ``MatMul`` and the ``Add`` of a constant bias that it can swallow, or ``None``.

    ``MatMul(x, W[K,N]) -> Add(y, b[N])`` becomes one ``linear`` when nothing else reads the
    product: it would not exist in the program.
    """
    if node.op_type != "MatMul" or not linear(node):
        return None
    product = node.outputs[0]
    users = list(product.uses())
    if len(users) != 1 or product.is_graph_output() or users[0].node.op_type != "Add":
        return None
    add = users[0].node
    bias = constant(add.inputs[1])
    width = shape_of(product)[-1]
    if bias is None or bias.shape != (width,) or shape_of(add.outputs[0]) != shape_of(product):
        return None
    return FusedLinear(node, add)


def _is_linear(node: ir.Node) -> bool:
    x, w = node.inputs
    if x is None or w is None or constant(x) is not None:
        return False
    # linear takes ranks 1 to 3 (coremltools, iOS15/linear.py).
    return constant(w) is not None and len(shape_of(w)) == 2 and 1 <= len(shape_of(x)) <= 3


def _weight(ctx: Context, value: ir.Value) -> Any:
    array = constant(value)
    assert array is not None
    return ctx.const(array.T, str(value.name))


def _lower_linear(ctx: Context, node: ir.Node, out: ir.Value, bias: ir.Value | None) -> None:
    x, w = node.inputs
    assert x is not None
    assert w is not None
    width = shape_of(w)[1]
    offset = ctx.get(bias) if bias is not None else ctx.const(np.zeros(width, "f4"), "zeros")
    ctx.emit(out, "linear", x=ctx.get(x), weight=_weight(ctx, w), bias=offset)


@dataclass(frozen=True)
class FusedLinear:
    """``MatMul`` and the ``Add`` of its bias."""

    product: ir.Node
    add: ir.Node

    def lower(self, ctx: Context) -> None:
        """Write the sum; the product does not exist."""
        _lower_linear(ctx, self.product, self.add.outputs[0], self.add.inputs[1])


def _matrix(ctx: Context, node: ir.Node, index: int) -> Any:
    """An operand with at least two axes: a vector becomes a row (0) or a column (1)."""
    value = node.inputs[index]
    shape = ctx.shape(value)
    if len(shape) > 1:
        return ctx.get(value)
    target = [1, shape[0]] if index == 0 else [shape[0], 1]
    return ctx.temp(
        node.outputs[0], f"matrix{index}", "reshape", x=ctx.get(value), shape=i32(target)
    )


def _matmul(ctx: Context, node: ir.Node) -> None:
    out = node.outputs[0]
    if _is_linear(node):
        _lower_linear(ctx, node, out, None)
        return
    vectors = any(len(ctx.shape(v)) == 1 for v in node.inputs)
    x, y = _matrix(ctx, node, 0), _matrix(ctx, node, 1)
    if not vectors:
        ctx.emit(out, "matmul", x=x, y=y, transpose_x=False, transpose_y=False)
        return
    product = ctx.temp(out, "product", "matmul", x=x, y=y)
    ctx.emit(out, "reshape", x=product, shape=i32(ctx.shape(out)))


def _attention(ctx: Context, node: ir.Node) -> None:
    """softmax(scale q k^T + mask) v, one operation a step.

    The query is scaled, not the scores: in float16 the scores then stay in range.
    """
    out = node.outputs[0]
    query, key, value = (ctx.get(v) for v in node.inputs[:3])
    scale = floats(node, "scale", float("nan"))
    if ctx.system >= 18 and query.shape[:2] == key.shape[:2] == value.shape[:2]:
        _fused_attention(ctx, node, query, scale)
        return
    scaled = ctx.temp(out, "query", "mul", x=query, y=ctx.scalar(scale))
    scores = ctx.temp(
        out, "scores", "matmul", x=scaled, y=key, transpose_x=False, transpose_y=True
    )
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        scores = ctx.temp(out, "masked", "add", x=scores, y=ctx.addend(node.inputs[3]))
    weights = ctx.temp(out, "weights", "softmax", x=scores, axis=-1)
    ctx.emit(out, "matmul", x=weights, y=value, transpose_x=False, transpose_y=False)


def _fused_attention(ctx: Context, node: ir.Node, query: Any, scale: float) -> None:
    """One operation, from iOS 18 on. It divides by sqrt(D) itself: the rest is multiplied."""
    out = node.outputs[0]
    rest = scale * math.sqrt(query.shape[-1])
    if not math.isclose(rest, 1.0, rel_tol=2.0**-20):
        query = ctx.temp(out, "query", "mul", x=query, y=ctx.scalar(rest))
    more = {}
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        more["attn_mask"] = ctx.addend(node.inputs[3])
    key, value = (ctx.get(v) for v in node.inputs[1:3])
    op = "scaled_dot_product_attention"
    ctx.emit(out, op, query=query, key=key, value=value, **more)


def _refuse_attention(node: ir.Node) -> str | None:
    if len(node.inputs) > 4:
        return "past or present keys and values are not lowered"
    if any(out.name for out in node.outputs[1:]):
        return "only the first output of Attention is lowered"
    for key in ("is_causal", "softcap", "q_num_heads", "kv_num_heads"):
        if key in node.attributes and node.attributes[key].value:
            return f"attribute {key} is not canonical (docs/canonical.md)"
    if "scale" not in node.attributes:
        return "attribute scale is not explicit"
    if any(v is None or len(shape_of(v)) != 4 for v in node.inputs[:3]):
        return "query, key and value must have rank 4"
    if len({shape_of(v)[1] for v in node.inputs[:3] if v is not None}) != 1:
        return "grouped heads are not canonical"
    return None


TABLE: dict[str, Rule] = {
    "MatMul": Rule(_matmul),
    "Attention": Rule(_attention, _refuse_attention, saturates=True, narrow=masks_only),
}
