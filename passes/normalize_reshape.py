"""One operator for every change of shape: ``Reshape`` to a constant, fully known target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import attr, given, ints, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["NormalizeReshape"]

_FAMILY = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class NormalizeReshape(NodePass):
    """Bring ``Reshape``, ``Flatten``, ``Squeeze`` and ``Unsqueeze`` to one form.

    ``Squeeze(Reshape(x, [0, -1, 1]), axes=[2])``  ->  ``Reshape(x, [1, 64])``

    1. The output shape is known and has no empty dimension.
    2. A chain reads from its start: only the last shape matters.
    3. Input shape equal to output shape: the node goes.
    """

    name: ClassVar[str] = "normalize-reshape"
    ops: ClassVar[frozenset[str]] = _FAMILY

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite unless the target is written out already."""
        target = static(node.outputs[0])
        if target is None or 0 in target:  # case 1
            return Refused(f"target shape {node.outputs[0].shape} is not known or is empty")
        source = operand(node, 0)
        producer = source.producer()
        while producer is not None and producer.op_type in _FAMILY and not producer.domain:
            source = operand(producer, 0)  # case 2
            producer = source.producer()
        if static(source) == target:  # case 3
            return source
        plain = node.op_type == "Reshape" and attr(node, "allowzero", 0) == 0
        if plain and source is node.inputs[0] and ints(given(node, 1)) == target:
            return None
        shape = op.constant(np.array(target, np.int64))
        return op.op(
            "Reshape", [source, shape], {"allowzero": 0}, shape=target, dtype=source.dtype
        )
