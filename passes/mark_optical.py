"""Products that light can compute, marked as functions of our own domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import attr, given, operand
from edgevit.passes.functions import DOMAIN, ensure_function
from edgevit.passes.nodewise import NodePass, Result
from edgevit.pipeline import Outcome
from edgevit.rewrite import Builder

__all__ = ["MarkOptical"]

_KEYS = ("kernel_shape", "strides", "dilations", "pads", "group")


@dataclass(frozen=True)
class MarkOptical(NodePass):
    """Linear layers and convolutions as ``ai.edgevit.OpticalLinear`` and ``OpticalConv``.

    ``MatMul(x, W)`` -> ``OpticalLinear(x, W)``; ``Conv(x, W, b)`` -> ``OpticalConv(x, W) + b``

    The functions' bodies are the operators themselves, so that any ONNX runtime runs the
    marked model; the optical target schedules them as it does the plain ones.

    1. ``W`` is a float constant; of a linear layer it has rank 2.
    """

    name: ClassVar[str] = "mark-optical"
    ops: ClassVar[frozenset[str]] = frozenset({"Conv", "MatMul"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Mark one node."""
        x, weight = operand(node, 0), operand(node, 1)
        stored, out = constant(weight), node.outputs[0]
        if stored is None or stored.dtype.kind != "f":  # case 1
            return None
        if node.op_type == "MatMul":
            if stored.ndim != 2:
                return None
            return op.op(
                "OpticalLinear", [x, weight], domain=DOMAIN, shape=out.shape, dtype=out.dtype
            )
        marked = op.op(
            "OpticalConv",
            [x, weight],
            {key: attr(node, key) for key in _KEYS},
            domain=DOMAIN,
            shape=out.shape,
            dtype=out.dtype,
        )
        bias = given(node, 2)
        array = None if bias is None else constant(bias)
        if array is None:
            return marked if bias is None else None
        row = op.constant(np.ascontiguousarray(array.reshape(1, -1, 1, 1)))
        return op.op("Add", [marked, row], shape=out.shape, dtype=out.dtype)

    def call(self, model: ir.Model) -> Outcome:
        """Mark every node, then define what was used."""
        done = super().call(model)
        for name in sorted({n.op_type for n in model.graph if n.domain == DOMAIN}):
            ensure_function(model, name)
        return done
