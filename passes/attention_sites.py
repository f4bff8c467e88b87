"""Where attention is computed: the scores below a ``Softmax``, and what reads it above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.passes.algebra import scalar, sole_consumer
from edgevit.passes.sites import compose, has_static_shape, is_op, normalized_perm, swapped
from edgevit.rewrite import Refused

__all__ = [
    "Keys",
    "Readout",
    "Scores",
    "is_near",
    "keys_of",
    "readout",
    "scores_of",
    "unscaled",
]

# How many nodes away from a Softmax a product of two activations may be for the Softmax to
# be reported as attention that was not recovered.
_NEAR = 4


@dataclass(frozen=True)
class Scores:
    """``scale * (q @ kt) + masks``: what a softmax is taken of."""

    q: ir.Value
    kt: ir.Value
    scale: float
    masks: tuple[ir.Value | np.ndarray[Any, Any], ...]
    nodes: tuple[ir.Node, ...]


@dataclass(frozen=True)
class Keys:
    """Keys ``[..., T, D]``: ``source``, reshaped or transposed.

    Attributes:
        source: The value that holds them.
        perm: Transpose it this way; ``None`` leaves it.
        shape: Reshape it to this; ``None`` leaves it.
        scale: Factor that was taken off.
        nodes: Nodes that this leaves out.
    """

    source: ir.Value
    perm: tuple[int, ...] | None
    shape: tuple[int, ...] | None
    scale: float
    nodes: tuple[ir.Node, ...]


@dataclass(frozen=True)
class Readout:
    """``p @ v``, or its transpose ``vt @ p^T``.

    Attributes:
        v: The values, transposed or not.
        output: The product.
        transposed: Which of the two.
        guarded: Whether NaN in p is replaced by zero first.
        nodes: All nodes from p to the product.
    """

    v: ir.Value
    output: ir.Value
    transposed: bool
    guarded: bool
    nodes: tuple[ir.Node, ...]


def unscaled(value: ir.Value) -> tuple[ir.Value, float, tuple[ir.Node, ...]]:
    """Take scalar factors off a value that nothing else reads."""
    scale = 1.0
    nodes: tuple[ir.Node, ...] = ()
    while sole_consumer(value) is not None:
        found = _scaled(value)
        if found is None:
            break
        value, scale, nodes = found[0], scale * found[1], (*nodes, found[2])
    return value, scale, nodes


def _scaled(value: ir.Value) -> tuple[ir.Value, float, ir.Node] | None:
    """Read ``y * c`` or ``y / c`` of the same shape as (y, factor, node)."""
    node = value.producer()
    if node is None or not is_op(node, "Mul", "Div"):
        return None
    a, b = node.inputs
    if a is None or b is None:
        return None
    number = scalar(b)
    if number is None and is_op(node, "Mul"):
        a, number = b, scalar(a)
    if not number or a.shape != value.shape:
        return None
    return a, number if is_op(node, "Mul") else 1.0 / number, node


def scores_of(value: ir.Value) -> Scores | Refused | None:
    """Read the softmax's input down to ``q @ kt``."""
    node = value.producer()
    if node is None:
        return None
    if is_op(node, "MatMul") and node.inputs[0] is not None and node.inputs[1] is not None:
        return Scores(node.inputs[0], node.inputs[1], 1.0, (), (node,))
    scaled = _scaled(value)
    if scaled is not None:
        return _with_scale(scores_of(scaled[0]), scaled[1], scaled[2])
    if is_op(node, "Add"):
        return _with_mask(node)
    if is_op(node, "Reshape"):
        return _with_window_mask(node)
    if is_op(node, "Where"):
        return Refused("scores are masked by Where, not by an addition")
    return None


def _with_scale(
    inner: Scores | Refused | None, factor: float, node: ir.Node
) -> Scores | Refused | None:
    if not isinstance(inner, Scores):
        return inner
    if inner.masks:
        return Refused("scores are scaled after the mask is added")
    return Scores(inner.q, inner.kt, inner.scale * factor, (), (*inner.nodes, node))


def _with_mask(node: ir.Node) -> Scores | Refused | None:
    """``scores + mask`` in either order; the scores have the shape of the sum."""
    a, b = node.inputs
    if a is None or b is None:
        return None
    last: Scores | Refused | None = None
    for scores, mask in ((a, b), (b, a)):
        if scores.shape != node.outputs[0].shape:
            continue
        inner = scores_of(scores)
        if isinstance(inner, Scores):
            masks = (*inner.masks, mask)
            return Scores(inner.q, inner.kt, inner.scale, masks, (*inner.nodes, node))
        last = last or inner
    return last


def _with_window_mask(node: ir.Node) -> Scores | Refused | None:
    """``Reshape(Reshape(scores, [B, W, H, S, T]) + mask)``: a mask per window (Swin).

    The batch holds B * W windows; a constant mask is repeated over B and gets the shape
    that the scores have outside.
    """
    inner = node.inputs[0].producer() if node.inputs[0] is not None else None
    if inner is None or not is_op(inner, "Add"):
        return None
    for scores, mask in (inner.inputs, inner.inputs[::-1]):
        before = scores.producer() if scores is not None else None
        array = constant(mask)
        if before is None or array is None or not is_op(before, "Reshape"):
            continue
        source = before.inputs[0]
        found = scores_of(source) if source is not None else None
        if not isinstance(found, Scores) or source is None or scores is None:
            return found
        spread = _per_batch(array, scores, source, node.outputs[0])
        if spread is None:
            return Refused("the mask is added in another shape than the scores have")
        nodes = (*found.nodes, before, inner, node)
        return Scores(found.q, found.kt, found.scale, (*found.masks, spread), nodes)
    return None


def _per_batch(
    mask: np.ndarray[Any, Any], inside: ir.Value, source: ir.Value, outside: ir.Value
) -> np.ndarray[Any, Any] | None:
    if not has_static_shape(inside, source, outside) or source.shape != outside.shape:
        return None
    within, without = shape_of(inside), shape_of(outside)
    if len(without) != 4 or len(within) != 5 or within[2:] != without[1:] or mask.ndim > 5:
        return None
    full = mask.reshape((1,) * (5 - mask.ndim) + mask.shape)
    return np.broadcast_to(full, (*within[:2], *full.shape[2:])).reshape(-1, *full.shape[2:])


def keys_of(value: ir.Value) -> Keys:
    """Read ``kt`` of shape ``[..., D, T]`` as keys; at worst they are transposed anew."""
    inner, scale, nodes = unscaled(value)
    node = inner.producer()
    rank = len(shape_of(inner))
    if node is not None and sole_consumer(inner) is not None and node.inputs[0] is not None:
        if is_op(node, "Transpose"):
            source, below, more = unscaled(node.inputs[0])
            perm = compose(normalized_perm(node), swapped(rank))
            identity = perm == tuple(range(rank))
            every = (*nodes, node, *more)
            return Keys(source, None if identity else perm, None, scale * below, every)
        regrouped = _regrouped(node)
        if regrouped is not None:
            shape = shape_of(inner)
            target = (*shape[:-2], shape[-1], shape[-2])
            source, below, more = unscaled(regrouped[0])
            fits = shape_of(source) == target
            every = (*nodes, *regrouped[1], *more)
            return Keys(source, None, None if fits else target, scale * below, every)
    return Keys(inner, swapped(rank), None, scale, nodes)


def _regrouped(node: ir.Node) -> tuple[ir.Value, tuple[ir.Node, ...]] | None:
    """Read ``Reshape(Transpose(y, swap last two))`` that regroups leading axes only."""
    middle = node.inputs[0].producer() if node.inputs[0] is not None else None
    if not is_op(node, "Reshape") or middle is None or not is_op(middle, "Transpose"):
        return None
    if sole_consumer(middle.outputs[0]) is not node or middle.inputs[0] is None:
        return None
    inside, outside = shape_of(middle.outputs[0]), shape_of(node.outputs[0])
    if normalized_perm(middle) != swapped(len(inside)) or inside[-2:] != outside[-2:]:
        return None
    return middle.inputs[0], (node, middle)


def readout(p: ir.Value) -> Readout | None:
    """What multiplies the probabilities with the values."""
    safe, guard = _guard(p)
    node = sole_consumer(safe)
    if node is None:
        return None
    guarded = bool(guard)
    if is_op(node, "MatMul") and node.inputs[0] is safe and node.inputs[1] is not None:
        return Readout(node.inputs[1], node.outputs[0], False, guarded, (*guard, node))
    if not is_op(node, "Transpose") or normalized_perm(node) != swapped(len(shape_of(p))):
        return None
    above = sole_consumer(node.outputs[0])
    if above is None or not is_op(above, "MatMul") or above.inputs[1] is not node.outputs[0]:
        return None
    v = above.inputs[0]
    if v is None:
        return None
    return Readout(v, above.outputs[0], True, guarded, (*guard, node, above))


def _guard(p: ir.Value) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """See through ``Where(IsNaN(p), 0, p)``, which torch adds to boolean masks."""
    readers = {id(n): n for n, _ in p.uses()}.values()
    tests = [n for n in readers if is_op(n, "IsNaN")]
    picks = [n for n in readers if is_op(n, "Where")]
    if len(readers) != 2 or len(tests) != 1 or len(picks) != 1 or p.is_graph_output():
        return p, ()
    condition, zero, kept = picks[0].inputs
    if condition is not tests[0].outputs[0] or kept is not p or scalar(zero) != 0.0:
        return p, ()
    return picks[0].outputs[0], (tests[0], picks[0])


def is_near(node: ir.Node) -> bool:
    """Whether a product of two activations is within reach of a ``Softmax``, either side."""
    return _reaches(node, up=True, steps=_NEAR) and _reaches(node, up=False, steps=_NEAR)


def _reaches(node: ir.Node, up: bool, steps: int) -> bool:
    around = node.predecessors() if up else node.successors()
    if any(is_op(n, "MatMul") and _two_activations(n) for n in around):
        return True
    return steps > 1 and any(_reaches(n, up, steps - 1) for n in around)


def _two_activations(node: ir.Node) -> bool:
    return all(v is not None and constant(v) is None for v in node.inputs)
