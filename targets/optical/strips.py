"""Convolutions of pictures that are larger than the plane, cut into strips that overlap.

``Conv(x)`` -> ``Concat(Conv(Slice(x)), Conv(Slice(x)), ...)``: every strip of outputs sees the
inputs that its windows reach, and pads only where the picture ends. Slices and concatenation
are electronic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import Names, shape_of
from edgevit.targets.optical.layer import Window
from edgevit.targets.optical.sites import layer_of

__all__ = ["Strip", "cuts", "strips", "write_strips"]

_CONVOLUTIONS = frozenset({"Conv", "OpticalConv"})


@dataclass(frozen=True)
class Strip:
    """Some outputs along one direction.

    Attributes:
        begin: First input element that their windows see.
        end: Behind the last one.
        before: Padding in front of ``begin``.
        after: Padding behind ``end``.
        out: Number of outputs.
    """

    begin: int
    end: int
    before: int
    after: int
    out: int


def strips(window: Window, pixels: int) -> tuple[Strip, ...] | None:
    """The fewest strips of one direction whose tiles fit ``pixels``, about equally long.

    Returns:
        ``None`` if a single window is longer than the plane, or lies in the padding alone.
    """
    reach = window.reach
    if pixels < reach + 1:
        return None
    most = (pixels - 1 - reach) // window.stride + 1
    count = 1 if window.pitch <= pixels else math.ceil(window.out / most)
    each = math.ceil(window.out / count)
    found = []
    for first in range(0, window.out, each):
        out = min(each, window.out - first)
        start = first * window.stride - window.before
        stop = start + (out - 1) * window.stride + reach + 1
        begin, end = max(0, start), min(window.size, stop)
        if end <= begin:
            return None
        found.append(Strip(begin, end, begin - start, stop - end, out))
    return tuple(found)


def cuts(node: ir.Node, plane: tuple[int, int]) -> list[tuple[Strip, ...]] | None:
    """Strips along y and x of a convolution that is too large; ``None`` of any other node."""
    layer = layer_of(node) if node.op_type in _CONVOLUTIONS else None
    if layer is None or layer.pointwise or layer.patches:
        return None
    windows = (layer.rows, layer.columns)
    if all(w.pitch <= n for w, n in zip(windows, plane, strict=True)):
        return None
    found = [strips(w, n) for w, n in zip(windows, plane, strict=True)]
    return None if None in found else [one for one in found if one is not None]


def write_strips(
    graph: ir.Graph,
    names: Names,
    node: ir.Node,
    rows: Sequence[Strip],
    columns: Sequence[Strip],
) -> None:
    """Put the strips in the place of a convolution; the last value keeps its name.

    Args:
        graph: Changed in place.
        names: Of the graph.
        node: The convolution.
        rows: Along y.
        columns: Along x.
    """
    writer = _Writer(graph, names, node)
    old = node.outputs[0]
    lines = [
        writer.concat([writer.strip(row, column) for column in columns], 3) for row in rows
    ]
    out = writer.concat(lines, 2)
    old.replace_all_uses_with(out, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    out.name, old.name = old.name, None


class _Writer:
    """Makes the nodes of one convolution's strips, in front of it."""

    def __init__(self, graph: ir.Graph, names: Names, node: ir.Node) -> None:
        self._graph, self._names, self._node = graph, names, node
        self._base = str(node.outputs[0].name)

    def strip(self, row: Strip, column: Strip) -> ir.Value:
        """The outputs of a strip of rows and one of columns."""
        x, weight = self._node.inputs[0], self._node.inputs[1]
        assert x is not None
        assert weight is not None
        bounds = [[row.begin, column.begin], [row.end, column.end], [2, 3], [1, 1]]
        shape = (*shape_of(x)[:2], row.end - row.begin, column.end - column.begin)
        seen = self._op("Slice", [x, *map(self._constant, bounds)], {}, shape)
        given = {k: a.value for k, a in self._node.attributes.items()}
        given["pads"] = (row.before, column.before, row.after, column.after)
        out = (*shape_of(self._node.outputs[0])[:2], row.out, column.out)
        inputs = [seen, *self._node.inputs[1:]]
        return self._op(self._node.op_type, inputs, given, out, self._node.domain)

    def concat(self, parts: Sequence[ir.Value], axis: int) -> ir.Value:
        """Parts behind each other; a single one as it is."""
        if len(parts) == 1:
            return parts[0]
        shape = list(shape_of(parts[0]))
        shape[axis] = sum(shape_of(part)[axis] for part in parts)
        return self._op("Concat", parts, {"axis": axis}, tuple(shape))

    def _op(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any],
        shape: tuple[int, ...],
        domain: str = "",
    ) -> ir.Value:
        name = self._names.fresh(f"{self._base}.{op.lower()}")
        node = ir.node(op, inputs, attributes, domain=domain, name=name)
        out = node.outputs[0]
        out.name, out.shape, out.dtype = name, ir.Shape(shape), ir.DataType.FLOAT
        self._graph.insert_before(self._node, node)
        return out

    def _constant(self, numbers: Sequence[int]) -> ir.Value:
        name = self._names.fresh(f"{self._base}.bounds")
        value = ir.val(name, ir.DataType.INT64, [len(numbers)])
        value.const_value = ir.tensor(np.asarray(numbers, np.int64), name=name)
        self._graph.register_initializer(value)
        return value
