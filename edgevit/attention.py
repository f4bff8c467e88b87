"""Attention in the pieces that it is defined by."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.model import shape_of
from edgevit.rewrite import Builder

__all__ = ["is_plain", "take_apart"]

_FLAGS = ("is_causal", "softcap", "qk_matmul_output_mode")


def is_plain(node: ir.Node) -> bool:
    """Whether a node is an ``Attention`` of canonical form, which ``take_apart`` writes out.

    Those that canonicalization refuses are not: causal, capped or of grouped heads, with a
    boolean mask, a cache or more than one output.
    """
    if node.op_type != "Attention" or node.domain or not 3 <= len(node.inputs) <= 4:
        return False
    q, k, v, mask = (*node.inputs, None)[:4]
    shapes = [() if x is None or x.shape is None else tuple(x.shape) for x in (q, k, v)]
    four = all(len(s) == 4 and s[:2] == shapes[0][:2] for s in shapes)
    added = mask is None or mask.dtype != ir.DataType.BOOL
    flags = any(node.attributes[f].value for f in _FLAGS if f in node.attributes)
    return (
        four and added and not flags and "scale" in node.attributes and len(node.outputs) == 1
    )


def take_apart(graph: ir.Graph, node: ir.Node, op: Builder) -> ir.Value:
    """Write an ``Attention`` of canonical form out, in place.

    ``Attention(Q, K, V, mask)`` -> ``Softmax(scale * Q K^T + mask) V`` (ONNX, Attention-23).

    Args:
        graph: It is in there; the result's name stays.
        node: ``is_plain``.
        op: Makes the nodes.

    Returns:
        The weights: the result of ``Softmax``.
    """
    q, k, v, mask = (*node.inputs, None)[:4]
    assert q is not None
    assert k is not None
    assert v is not None
    value = node.outputs[0]
    b, h, t, d = shape_of(k)
    dtype, scores = value.dtype, (*shape_of(q)[:3], t)
    turned = op.op("Transpose", [k], {"perm": [0, 1, 3, 2]}, shape=(b, h, d, t), dtype=dtype)
    s = op.op("MatMul", [q, turned], shape=scores, dtype=dtype)
    scale = op.constant(np.asarray(node.attributes["scale"].as_float(), np.float32))
    s = op.op("Mul", [s, scale], shape=scores, dtype=dtype)
    if mask is not None:
        s = op.op("Add", [s, mask], shape=scores, dtype=dtype)
    p = op.op("Softmax", [s], {"axis": 3}, shape=scores, dtype=dtype)
    y = op.op("MatMul", [p, v], shape=value.shape, dtype=dtype)
    graph.insert_before(node, op.nodes)
    y.name, value.name = value.name, None
    value.replace_all_uses_with(y, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return p
