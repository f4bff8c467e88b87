"""In which layout a node works: where it must, else where the fewest elements are moved.

Linear layers and layer norms work on channels, attention on heads, and what knows images
(convolutions, pools, resizes) in the model's own order. Everything else follows: of the
orders in which its operands lie, those of channels and the model's own, the one that costs
the fewest moved elements, its readers' wishes included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.targets.coreml.arranged import Arranged, extended
from edgevit.targets.coreml.layouts import HEADS, KEYS, Layout, channels, plain, swapped
from edgevit.targets.coreml.rule import fixed, ints, ints_in, text
from edgevit.targets.views import View, identity

__all__ = [
    "VIEWS",
    "flexible",
    "is_linear",
    "matrix_layout",
    "rows_layout",
    "viewed",
    "wishes",
    "working_layout",
]

VIEWS = frozenset({"Reshape", "Transpose"})

_POINTWISE = frozenset(
    {
        "Relu",
        "Sigmoid",
        "Tanh",
        "Softplus",
        "Erf",
        "Silu",
        "LeakyRelu",
        "Elu",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Mish",
        "Clip",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Max",
        "Min",
        "Abs",
        "Neg",
        "Sign",
        "Exp",
        "Log",
        "Sqrt",
        "Reciprocal",
        "Floor",
        "Ceil",
        "Round",
        "Sin",
        "Cos",
        "Not",
        "Equal",
        "Less",
        "Greater",
        "LessOrEqual",
        "GreaterOrEqual",
        "And",
        "Or",
        "Where",
        "Cast",
    }
)
_REDUCTIONS = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ArgMax"}
)
_NORMS = frozenset({"LayerNormalization"})
_LOOKAHEAD = 24  # nodes looked at behind a value: bounds the time, not the result's soundness


def _axis(node: ir.Node, default: int) -> tuple[int, ...]:
    rank = len(shape_of(node.outputs[0]))
    return (node.attributes.get_int("axis", default) % max(rank, 1),)


def _sliced(node: ir.Node) -> tuple[int, ...]:
    axes = ints_in(node, 3) or list(range(len(shape_of(node.outputs[0]))))
    return tuple(axis % len(shape_of(node.outputs[0])) for axis in axes)


def _padded(node: ir.Node) -> tuple[int, ...]:
    pads = ints_in(node, 1) or []
    half = len(pads) // 2
    return tuple(i for i in range(half) if pads[i] or pads[i + half])


def _reduced(node: ir.Node) -> tuple[int, ...] | None:
    if not node.attributes.get_int("keepdims", 1):
        return None
    return _axis(node, 0) if node.op_type == "ArgMax" else tuple(ints_in(node, 1) or ())


def _quantized(node: ir.Node) -> tuple[int, ...] | None:
    if fixed(node.outputs[0]):
        return None
    scale = constant(node.inputs[1])
    return _axis(node, 1) if scale is not None and scale.size > 1 else ()


_AXES: dict[str, Callable[[ir.Node], tuple[int, ...] | None]] = {
    **dict.fromkeys(_POINTWISE, lambda node: ()),
    **dict.fromkeys(_REDUCTIONS, _reduced),
    "Softmax": lambda node: _axis(node, -1),
    "Concat": lambda node: _axis(node, 0),
    "Split": lambda node: _axis(node, 0),
    "Slice": _sliced,
    "Pad": _padded,
    "QuantizeLinear": _quantized,
    "DequantizeLinear": _quantized,
    "LayerNormalization": lambda node: _axis(node, -1),
}


def flexible(node: ir.Node) -> tuple[int, ...] | None:
    """The axes that must stay alone where the node works; ``None``: in its own axes only."""
    own = node.domain in ("", "ai.onnx") or node.op_type == "Silu"
    rule = _AXES.get(node.op_type) if own else None
    return None if rule is None or not shape_of(node.outputs[0]) else rule(node)


def is_linear(node: ir.Node) -> bool:
    """Whether a node is a product with a weight, which becomes a 1x1 convolution."""
    if node.op_type != "MatMul":
        return False
    x, w = node.inputs
    assert x is not None
    assert w is not None
    matrix = fixed(w) and len(shape_of(w)) == 2
    return matrix and not fixed(x) and bool(channels(len(shape_of(x))))


def _operands(node: ir.Node) -> Iterator[ir.Value]:
    """The computed operands of a flexible node."""
    count = len(node.inputs) if node.op_type in (*_POINTWISE, "Concat") else 1
    for value in node.inputs[:count]:
        if value is not None and constant(value) is None:
            yield value


def _valid(node: ir.Node, layout: Layout, alone: tuple[int, ...]) -> bool:
    """Whether the node means the same in this layout."""
    if any(layout.place(axis) is None for axis in alone):
        return False
    if node.op_type == "Pad" and text(node, "mode", "constant") != "constant":
        last = len(layout.groups) - 2
        return all((layout.place(axis) or 0) >= last for axis in alone)
    full = shape_of(node.outputs[0])
    if node.op_type not in _POINTWISE:
        return True
    shapes = [shape_of(v) for v in _operands(node)]
    wide = [(1,) * (layout.rank - len(s)) + s for s in shapes]
    return all(layout.broadcasts(s, full) for s in wide)


def _natural(ctx: Arranged, value: ir.Value, rank: int) -> Layout | None:
    """The order in which an operand lies."""
    perm = extended(ctx.held(value).view, rank).natural()
    return None if perm is None else Layout(tuple((axis,) for axis in perm))


def _candidates(ctx: Arranged, node: ir.Node) -> list[Layout]:
    rank = len(shape_of(node.outputs[0]))
    forms, own = channels(rank), plain(rank)
    if node.op_type in _NORMS:
        return list(forms) or [own]
    lying = (_natural(ctx, v, rank) for v in _operands(node))
    natural = [layout for layout in lying if layout is not None]
    known = [own, *forms] if rank >= 4 else [*forms, own]
    return [c for c in (*known, *natural) if len(c.groups) <= 5]


def _reading(ctx: Arranged, node: ir.Node, layout: Layout) -> int:
    """Elements moved to have the operands in ``layout``."""
    moved = 0
    for value in _operands(node):
        view = extended(ctx.held(value).view, layout.rank)
        moved += 0 if view.free(layout.perm) else math.prod(view.shape)
    return moved


def working_layout(ctx: Arranged, node: ir.Node, alone: tuple[int, ...]) -> Layout:
    """The layout for a flexible node.

    Args:
        ctx: Where its operands lie.
        node: The node.
        alone: What ``flexible`` says of it.
    """
    candidates = [c for c in _candidates(ctx, node) if _valid(node, c, alone)]
    if not candidates:
        return plain(len(shape_of(node.outputs[0])))
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda c: _reading(ctx, node, c) + _leaving(node, c))


def _leaving(node: ir.Node, layout: Layout) -> int:
    """Elements that readers move if the outputs lie in ``layout``."""
    return sum(wishes(out, layout) for out in node.outputs)


def rows_layout(ctx: Arranged, value: ir.Value) -> Layout:
    """The layout in which a linear layer reads ``value``."""
    forms = channels(len(shape_of(value)))
    return min(forms, key=lambda c: not ctx.held(value).free(c))


def matrix_layout(ctx: Arranged, value: ir.Value) -> Layout:
    """Plain, or the last two axes exchanged if ``value`` lies like that."""
    rank = len(shape_of(value))
    if constant(value) is not None or rank < 2:
        return plain(rank)
    forms = (plain(rank), swapped(rank))
    return min(forms, key=lambda c: not ctx.held(value).free(c))


def _wanted(node: ir.Node, index: int) -> tuple[Layout, ...]:
    """In which layouts a node that is not flexible reads an operand for nothing."""
    value = node.inputs[index]
    assert value is not None
    rank = len(shape_of(value))
    if (is_linear(node) and index == 0) or node.op_type in _NORMS:
        return channels(rank) or (plain(rank),)
    if node.op_type == "MatMul" and rank >= 2:
        return (plain(rank), swapped(rank))
    if node.op_type == "Attention":
        return (KEYS,) if index == 1 else (HEADS,)
    return (plain(rank),)


def wishes(value: ir.Value, layout: Layout) -> int:
    """Elements that readers of ``value`` move if it lies in ``layout``."""
    seen: set[ir.Node] = set()
    view = identity(shape_of(value), layout.perm)
    return _follow(value, view, seen)


def _follow(value: ir.Value, view: View, seen: set[ir.Node]) -> int:
    moved = 0
    if value.is_graph_output() and not view.free(tuple(range(len(view.axes)))):
        moved += math.prod(view.shape)
    for use in value.uses():
        if use.node in seen or len(seen) > _LOOKAHEAD:
            continue
        seen.add(use.node)
        moved += _use(use.node, use.idx, view, seen)
    return moved


def _use(node: ir.Node, index: int, view: View, seen: set[ir.Node]) -> int:
    out = node.outputs[0]
    if node.op_type in VIEWS:
        through = viewed(node, view)
        return 0 if through is None else _follow(out, through, seen)
    alone = flexible(node)
    if alone is not None and node.op_type not in _NORMS:
        same = view.shape == shape_of(out)
        return _follow(out, view, seen) if same else 0
    free = any(view.free(layout.perm) for layout in _wanted(node, index))
    return 0 if free else math.prod(view.shape)


def viewed(node: ir.Node, view: View) -> View | None:
    """What a Reshape or Transpose makes of a view; ``None`` if it must be computed."""
    if node.op_type == "Transpose":
        return view.transpose(tuple(ints(node, "perm")))
    return view.reshape(shape_of(node.outputs[0]) or (1,))
