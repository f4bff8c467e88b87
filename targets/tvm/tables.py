"""All operator tables in one."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgevit.model import dtype_of, shape_of
from edgevit.targets.merging import key, merged
from edgevit.targets.tvm import (
    ops_conv,
    ops_index,
    ops_integer,
    ops_linear,
    ops_movement,
    ops_pointwise,
    ops_rows,
    ops_shift,
)
from edgevit.targets.tvm.table import Op

__all__ = ["OPS", "key", "refusal"]

DTYPES = frozenset({"float32", "int32", "int64", "uint8", "int8", "bool", "float64"})


OPS: Mapping[str, Op] = merged(
    ops_conv.OPS,
    ops_index.OPS,
    ops_integer.OPS,
    ops_linear.OPS,
    ops_movement.OPS,
    ops_pointwise.OPS,
    ops_rows.OPS,
    ops_shift.OPS,
)


def refusal(node: ir.Node) -> str | None:
    """Why a canonical node cannot be lowered; ``None`` if it can."""
    op = OPS.get(key(node))
    if op is None:
        return f"operator {key(node)} has no kernel in the TVM backend"
    for value in (*node.inputs, *node.outputs):
        if value is None:
            continue
        dtype = dtype_of(value).name
        if dtype not in DTYPES:
            return f"value {value.name!r} has dtype {dtype}, which is not lowered"
        # An absent scale of Resize; the shape of a scalar. Neither is read when the code runs.
        unread = node.op_type in ("Reshape", "Resize") and value.const_value is not None
        if 0 in shape_of(value) and not unread:
            return f"value {value.name!r} of shape {shape_of(value)} has no elements"
    return op.check(node)
