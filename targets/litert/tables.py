"""All operator tables in one."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgevit.model import dtype_of, shape_of
from edgevit.targets.litert import (
    activation,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    reduction,
    resize,
    shape,
)
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.integer import INTEGER
from edgevit.targets.litert.quantizers import OPS as QUANTIZERS
from edgevit.targets.litert.rules import Rule
from edgevit.targets.litert.table import Op
from edgevit.targets.litert.writer import DTYPES
from edgevit.targets.merging import key, merged

__all__ = ["OPS", "key", "op_of", "refusal", "rule_of"]


OPS: Mapping[str, Op] = merged(
    activation.OPS,
    convolution.OPS,
    elementwise.OPS,
    indexing.OPS,
    linear.OPS,
    QUANTIZERS,
    normalization.OPS,
    pooling.OPS,
    reduction.OPS,
    resize.OPS,
    shape.OPS,
)


_WHOLE = frozenset({"Split", "TopK"})  # operators whose every output is written


def op_of(group: Group) -> Op:
    """The entry of a group: on codes or on floats."""
    return (OPS if group.integer is None else INTEGER)[key(group.head)]


def rule_of(group: Group) -> Rule:
    """The layout rule of a group."""
    rule = op_of(group).rule
    return rule if isinstance(rule, Rule) else rule(group)


def refusal(node: ir.Node) -> str | None:
    """Why a canonical node cannot be lowered; ``None`` if it can."""
    op = OPS.get(key(node))
    if op is None:
        return f"operator {key(node)} has no lowering to TFLite"
    for value in (*node.inputs, *(out for out in node.outputs if out.name)):
        found = None if value is None else _value_refusal(node, value)
        if found is not None:
            return found
    return _output_refusal(node) or op.check(node)


def _value_refusal(node: ir.Node, value: ir.Value) -> str | None:
    dtype = dtype_of(value).name
    if dtype not in DTYPES:
        return f"value {value.name!r} has dtype {dtype}, which is not lowered"
    # No tensor is made of an absent roi or scales of Resize, nor of the shape of a scalar.
    unread = node.op_type in ("Resize", "Reshape") and value.const_value is not None
    if 0 in shape_of(value) and not unread:
        return f"value {value.name!r} of shape {shape_of(value)} has no elements"
    return None


def _output_refusal(node: ir.Node) -> str | None:
    if key(node) in _WHOLE:
        return None
    for out in node.outputs[1:]:
        if out.uses() or out.is_graph_output():
            return f"output {out.name!r} is used: only the first of {key(node)} is lowered"
    return None
