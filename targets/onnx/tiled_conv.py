"""Convolutions whose windows do not overlap, as the linear layers that they are.

``ConvInteger`` multiplies by a kernel of ONNX Runtime that is slower than floats, and
``QLinearConv`` has to round its result; products of matrices have neither fault.

``Conv(x, DQ(w), b)``  ->  ``Transpose(MatMul(Transpose(x), DQ(w')) + b)``, channels last in
between. Where ``x`` is dequantized, its codes are moved. ONNX Runtime takes transposes
through elementwise operators until they meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.layer_rules import kind_of
from edgevit.model import Names, shape_of
from edgevit.quantizers import Stored, dequantizer, quantizer_of, stored
from edgevit.targets.attributes import data_of

__all__ = ["per_channel", "tile_convolutions"]

Array = np.ndarray[Any, Any]
_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_WINDOWS = (0, 2, 4, 1, 3, 5)  # [n, c, h, kh, w, kw] -> [n, h, w, c, kh, kw]


def tile_convolutions(model: ir.Model, wanted: Callable[[ir.Node], bool]) -> None:
    """Rewrite the wanted convolutions that can be, in place.

    1. The weight is stored in 8 bits, symmetrically, with scales of output channels or one.
    2. One group, two spatial axes, windows as long as their strides, no padding, no
       dilation; the windows tile the image.
    """
    names = Names(model.graph)
    for node in list(model.graph):
        if node.op_type != "Conv" or node.domain or not _tiles(node) or not wanted(node):
            continue
        weight = per_channel(node, 0)
        if weight is not None:
            _Tiled(model.graph, names, node, weight).run()


def per_channel(node: ir.Node, axis: int) -> Stored | None:
    """Case 1: the weight of a layer whose output channels are on ``axis``."""
    weight = stored(node.inputs[1])
    if weight is None:
        return None
    q = weight.quantizer
    fits = q.dtype is ir.DataType.INT8 and q.symmetric and not q.block
    return weight if fits and q.axis in (None, axis) else None


def _tiles(node: ir.Node) -> bool:
    """Case 2."""
    shape, windows = shape_of(data_of(node, 0)), shape_of(data_of(node, 1))
    if len(shape) != 4 or kind_of(node, windows) not in ("pointwise", "patches"):
        return False
    return all(a % b == 0 for a, b in zip(shape[2:], windows[2:], strict=True))


class _Tiled:
    """Makes the linear layer of one convolution."""

    def __init__(self, graph: ir.Graph, names: Names, node: ir.Node, weight: Stored) -> None:
        self._graph, self._names = graph, names
        self._node, self._weight = node, weight
        self._base = str(node.outputs[0].name)
        self._made: list[ir.Node] = []

    def run(self) -> None:
        """Replace the convolution."""
        out = self._node.outputs[0]
        shape = shape_of(out)
        last = tuple(shape[i] for i in _LAST)
        result = self._new("MatMul", [self._rows(), self._matrix()], last)
        if len(self._node.inputs) > 2 and self._node.inputs[2] is not None:
            result = self._new("Add", [result, self._node.inputs[2]], last)
        result = self._new("Transpose", [result], shape, perm=_FIRST)
        self._graph.insert_before(self._node, self._made)
        out.replace_all_uses_with(result, replace_graph_outputs=True)
        self._graph.remove(self._node, safe=True)
        result.name = self._base

    def _rows(self) -> ir.Value:
        """The numbers that each position's products read, on the last axis."""
        data = dequantizer(self._node.inputs[0])
        q = None if data is None else quantizer_of(data)
        if data is None or q is None or q.axis is not None:
            return self._windows(data_of(self._node, 0))
        codes = self._windows(data_of(data, 0))
        return self._new("DequantizeLinear", [codes, *data.inputs[1:]], shape_of(codes))

    def _windows(self, x: ir.Value) -> ir.Value:
        n, c, h, w = shape_of(x)
        high, wide = shape_of(data_of(self._node, 1))[2:]
        if (high, wide) == (1, 1):
            return self._new("Transpose", [x], (n, h, w, c), x.dtype, perm=_LAST)
        split = (n, c, h // high, high, w // wide, wide)
        x = self._reshaped(x, split)
        x = self._new("Transpose", [x], [split[i] for i in _WINDOWS], x.dtype, perm=_WINDOWS)
        return self._reshaped(x, (n, h // high, w // wide, c * high * wide))

    def _matrix(self) -> ir.Value:
        """``[K, N]``, from codes."""
        found, q = self._weight.codes, self._weight.quantizer
        codes = np.ascontiguousarray(found.reshape(len(found), -1).T)
        kept = [
            self._constant("weight.codes", codes.astype(np.int8)),
            self._constant("weight.scale", np.asarray(q.scale, np.float32)),
            self._constant("weight.zero", np.zeros(q.scale.shape, np.int8)),
        ]
        axis: dict[str, Any] = {"axis": 1} if q.scale.ndim else {}
        return self._new("DequantizeLinear", kept, codes.shape, **axis)

    def _reshaped(self, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        wanted = self._constant("shape", np.array(shape, np.int64))
        return self._new("Reshape", [value, wanted], shape, value.dtype)

    def _new(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        shape: Sequence[int],
        dtype: ir.DataType | None = ir.DataType.FLOAT,
        **attributes: Any,
    ) -> ir.Value:
        node = ir.node(kind, inputs, attributes)
        (out,) = node.outputs
        out.name = node.name = self._names.fresh(f"{self._base}.{kind.lower()}")
        out.shape = ir.Shape(shape)
        out.type = None if dtype is None else ir.TensorType(dtype)
        self._made.append(node)
        return out

    def _constant(self, what: str, array: Array) -> ir.Value:
        name = self._names.fresh(f"{self._base}.{what}")
        dtype = ir.DataType.from_numpy(array.dtype)
        value = ir.val(name, dtype, list(array.shape), const_value=ir.tensor(array, name=name))
        self._graph.register_initializer(value)
        return value
