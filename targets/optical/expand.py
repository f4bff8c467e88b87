"""Attention as products and a softmax, large convolutions as strips, for light to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import Names, shape_of
from edgevit.targets.optical.sites import PRODUCT, PRODUCT_DOMAIN
from edgevit.targets.optical.strips import cuts, write_strips

__all__ = ["expand"]

Shape = tuple[int, ...]


def expand(model: ir.Model, plane: tuple[int, int]) -> ir.Model:
    """A copy of a canonical model, every attention written out, large convolutions cut.

    ``Attention(Q, K, V)`` -> ``Product(Softmax(scale Product(Q, K^T) + mask), V)``; the last
    value keeps its name, the others are new. For convolutions see ``strips``.

    Args:
        model: Stays as it is.
        plane: Rows and columns of the device.
    """
    copy = model.clone()
    names = Names(copy.graph)
    for node in list(copy.graph):
        if node.op_type == "Attention" and not node.domain:
            _Writer(copy.graph, names, node).write()
        elif (cut := cuts(node, plane)) is not None:
            write_strips(copy.graph, names, node, *cut)
    return copy


class _Writer:
    """Writes one attention."""

    def __init__(self, graph: ir.Graph, names: Names, node: ir.Node) -> None:
        self._graph, self._names, self._node = graph, names, node
        self._base = str(node.outputs[0].name)

    def write(self) -> None:
        """Put the new nodes in front of the old one, and take it out."""
        node = self._node
        q, k, v = (i for i in node.inputs[:3] if i is not None)
        (b, h, s, d), t = shape_of(q), shape_of(k)[2]
        # The canonical form has a scale; 0 is one too, and makes the weights uniform.
        scale = node.attributes.get_float("scale", 1 / math.sqrt(d))
        shape = (b, h, s, t)
        seen = self._op(PRODUCT, [q, k], shape, {"transposed": 1}, PRODUCT_DOMAIN)
        seen = self._op("Mul", [seen, self._constant(np.float32(scale))], shape)
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            seen = self._op("Add", [seen, node.inputs[3]], shape)
        seen = self._op("Softmax", [seen], shape, {"axis": 3})
        old = node.outputs[0]
        out = self._op(PRODUCT, [seen, v], shape_of(old), {"transposed": 0}, PRODUCT_DOMAIN)
        old.replace_all_uses_with(out, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)
        out.name, old.name = self._base, None

    def _op(
        self,
        op: str,
        inputs: Sequence[ir.Value],
        shape: Shape,
        attributes: dict[str, Any] | None = None,
        domain: str = "",
    ) -> ir.Value:
        name = self._names.fresh(f"{self._base}.{op.lower()}")
        node = ir.node(op, inputs, attributes or {}, domain=domain, name=name)
        out = node.outputs[0]
        out.name, out.shape, out.dtype = name, ir.Shape(shape), ir.DataType.FLOAT
        self._graph.insert_before(self._node, node)
        return out

    def _constant(self, number: np.float32) -> ir.Value:
        name = self._names.fresh(f"{self._base}.scale")
        value = ir.val(name, ir.DataType.FLOAT, [])
        value.const_value = ir.tensor(np.asarray(number), name=name)
        self._graph.register_initializer(value)
        return value
