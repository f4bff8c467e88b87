"""Linear layers, products of two activations, attention."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgevit.model import dtype_of, shape_of
from edgevit.targets.attributes import attribute, data_of, optional
from edgevit.targets.neighbors import is_linear
from edgevit.targets.tvm.context import Context, numbers_of
from edgevit.targets.tvm.kernels.arithmetic import FLOAT32
from edgevit.targets.tvm.kernels.attention import Attention, Heads, Mask
from edgevit.targets.tvm.kernels.batched import Batched, Matrices
from edgevit.targets.tvm.kernels.gemm import Gemm
from edgevit.targets.tvm.ops_dynamic import dynamic_linear
from edgevit.targets.tvm.ops_integer import integer_linear
from edgevit.targets.tvm.program import Ref
from edgevit.targets.tvm.strides import Held, dense
from edgevit.targets.tvm.table import Op, floats
from edgevit.targets.tvm.tails import tail
from edgevit.targets.tvm.tiles import product_name
from edgevit.targets.views import squeezed

__all__ = ["OPS", "float_linear"]


def _linear(ctx: Context, node: ir.Node) -> None:
    """Rows in the order in which they lie, whatever the leading axes are."""
    if integer_linear(ctx, node) or dynamic_linear(ctx, node):
        return
    weight = numbers_of(data_of(node, 1))
    if weight is None:
        raise ValueError(f"node {node.name!r}: the weight is not constant")
    float_linear(ctx, node, weight)


def float_linear(ctx: Context, node: ir.Node, weight: np.ndarray) -> None:
    """A product with constant numbers [K, N] in float32."""
    x, w = data_of(node), data_of(node, 1)
    k, n = weight.shape
    rows = ctx.rows(x)
    view = rows.view(n)
    after = tail(ctx, node, view)
    name = product_name("gemm", rows.count, n, k, FLOAT32.name)
    columns, most = ctx.tiles.columns(name, n)
    kernel = Gemm(rows.count, k, columns, rows.stride, n, after.epilogue, tile=most)
    packed = ctx.parameter(w.name or "", columns.pack(np.asarray(weight, np.float32)))
    made = ctx.new(after.output.name or "", rows.count * n, after.epilogue.dtype)
    ctx.program.call(kernel, rows.ref, packed, *after.refs(ctx, n), Ref(made))
    ctx.define(after.output, Held(made, 0, view))


def _matmul(ctx: Context, node: ir.Node) -> None:
    (_linear if is_linear(node) else _products)(ctx, node)


def _strides(
    ctx: Context, held: Held, shape: tuple[int, ...], *, unit: bool = True
) -> tuple[Held, list[int]]:
    """A stride for each axis, the last of them 1 if asked; copied where there is none."""
    axes = [squeezed(list(axis)) for axis in held.view.axes]
    last = axes[-1] in ((), ((shape[-1], 1),)) and (shape[-1] == 1 or bool(axes[-1]))
    if any(len(axis) > 1 for axis in axes) or (unit and not last):
        return _strides(ctx, ctx.copied(held, shape, None), shape, unit=unit)
    found = [axis[0][1] if axis else 0 for axis in axes]
    return held, found if not unit else [*found[:-1], 1]


def _products(ctx: Context, node: ir.Node) -> None:
    """Both sides computed at run time (or a constant on the left)."""
    a, b, out = data_of(node), data_of(node, 1), node.outputs[0]
    left = shape_of(a) if len(shape_of(a)) > 1 else (1, *shape_of(a))
    right = shape_of(b) if len(shape_of(b)) > 1 else (*shape_of(b), 1)
    (m, k), n = left[-2:], right[-1]
    batch = tuple(np.broadcast_shapes(left[:-2], right[:-2]))
    one, steps = _strides(ctx, _viewed(ctx, a, left), left)
    two, more = _strides(ctx, _viewed(ctx, b, right), right, unit=False)
    if 1 not in more[-2:]:
        two, more = _strides(ctx, two, right)
    dense_steps = [m * n * math.prod(batch[i + 1 :]) for i in range(len(batch))]
    kernel = Batched(
        ctx.machine,
        batch,
        m,
        n,
        k,
        Matrices(_broadcast(left[:-2], steps[:-2], batch), steps[-2]),
        Matrices(_broadcast(right[:-2], more[:-2], batch), more[-2], more[-1]),
        Matrices(tuple(dense_steps), n),
    )
    name = out.name or ""
    between = kernel.operands[2:-1]
    scratch = [Ref(ctx.new(f"{name}/{o.name}", o.size)) for o in between]
    made = ctx.new(name, math.prod(batch) * m * n)
    ctx.program.call(kernel, one.ref, two.ref, *scratch, Ref(made))
    ctx.define(out, Held(made, 0, dense(shape_of(out))))


def _viewed(ctx: Context, value: ir.Value, shape: tuple[int, ...]) -> Held:
    held = ctx.read(value)
    view = held.view.reshape(shape)
    return held if view is None else Held(held.tensor, held.offset, view)


def _broadcast(
    shape: tuple[int, ...], steps: list[int], batch: tuple[int, ...]
) -> tuple[int, ...]:
    """Strides over the axes of ``batch``; 0 where an operand repeats."""
    missing = len(batch) - len(shape)
    own = [s if size > 1 else 0 for s, size in zip(steps, shape, strict=True)]
    return (*[0] * missing, *own)


def _attention(ctx: Context, node: ir.Node) -> None:
    q, k, v = (data_of(node, i) for i in range(3))
    b, h, s, d = shape_of(q)
    shared, t, e = shape_of(v)[1:]
    held, lies = [], []
    for value in (q, k, v):
        one, steps = _strides(ctx, ctx.read(value), shape_of(value))
        held.append(one.ref)
        lies.append(Heads(steps[0], steps[1], steps[2]))
    refs, mask = _mask(ctx, optional(node, 3), (b, h, s, t))
    scale = attribute(node, "scale", d**-0.5)
    out = Heads(s * h * e, e, h * e)
    kernel = Attention(
        ctx.machine, b, h, shared, s, t, d, e, scale, lies[0], lies[1], lies[2], out, mask
    )
    name = node.outputs[0].name or ""
    scratch = ctx.new(f"{name}/scratch", kernel.operands[-2].size)
    made = ctx.new(name, b * h * s * e)
    ctx.program.call(kernel, *held, *refs, Ref(scratch), Ref(made))
    view = dense((b, s, h, e)).transpose((0, 2, 1, 3))
    ctx.define(node.outputs[0], Held(made, 0, view))


def _mask(
    ctx: Context, value: ir.Value | None, shape: tuple[int, ...]
) -> tuple[list[Ref], Mask | None]:
    if value is None:
        return [], None
    held, own = ctx.read(value), shape_of(value)
    held, steps = _strides(ctx, held, own)
    strides = _broadcast(own, steps, shape)
    return [held.ref], Mask(Heads(*strides[:3]), strides[3])


_EXTRAS = ("is_causal", "softcap", "q_num_heads", "kv_num_heads", "qk_matmul_output_mode")


def _bare(node: ir.Node) -> str | None:
    """What changes the function beyond the canonical attention."""
    for name in _EXTRAS:
        if attribute(node, name, 0):
            return f"attribute {name} is not canonical (docs/canonical.md)"
    mask = optional(node, 3)
    if mask is not None and dtype_of(mask).name != "float32":
        return f"the mask is {dtype_of(mask).name}, not added"
    if len(node.inputs) > 4:
        return "past keys and values are not canonical"
    q, k, v = (shape_of(data_of(node, i)) for i in range(3))
    if k[1] != v[1] or q[1] % k[1]:
        return f"{q[1]} heads do not share {k[1]} keys, {v[1]} values"
    return floats(node)


OPS: Mapping[str, Op] = {
    "Attention": Op(_attention, _bare),
    "MatMul": Op(_matmul, floats),
}
