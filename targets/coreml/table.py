"""The operator tables together, and what no operator may do."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.target import Target
from edgevit.targets.coreml import (
    op_activation,
    op_conv,
    op_elementwise,
    op_index,
    op_linear,
    op_norm,
    op_quant,
    op_reduce,
    op_resize,
    op_shape,
)
from edgevit.targets.coreml.context import FLOAT16_MAX, Array
from edgevit.targets.coreml.permute import wide_transpose
from edgevit.targets.coreml.rule import Rule

__all__ = ["RULES", "key", "reason"]

RULES: dict[str, Rule] = {
    **op_linear.TABLE,
    **op_conv.TABLE,
    **op_norm.TABLE,
    **op_quant.TABLE,
    **op_activation.TABLE,
    **op_elementwise.TABLE,
    **op_reduce.TABLE,
    **op_shape.TABLE,
    **op_index.TABLE,
    **op_resize.TABLE,
}

_ANY_RANK = 99

_DTYPES = frozenset(
    {"float16", "float32", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16"}
)


def key(node: ir.Node) -> str:
    """Name of an operator in the tables: ``domain::`` in front unless it is ONNX's own."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _tensors(node: ir.Node, rule: Rule) -> list[ir.Value]:
    """Inputs that become tensors of the program (not numbers of an operation), and outputs."""
    read = [v for v in node.inputs[: rule.numbers] if v is not None]
    return [*read, *(out for out in node.outputs if out.name)]


def _tensor_reason(value: ir.Value, max_rank: int) -> str | None:
    try:
        shape, dtype = shape_of(value), dtype_of(value)
    except (ValueError, TypeError) as e:
        return str(e)
    if len(shape) > max_rank:
        return f"value {value.name!r} has rank {len(shape)}, the device takes {max_rank}"
    if 0 in shape:
        return f"value {value.name!r} of shape {shape} has no elements"
    stored = dtype.name == "int4" and value.const_value is not None
    if dtype.name not in _DTYPES and not stored:
        return f"value {value.name!r} is {dtype.name}, which ML programs do not have"
    return None


def _constant_reason(array: Array, name: str, narrow: bool) -> str | None:
    """``narrow``: the constant must be within float16's range."""
    if np.issubdtype(array.dtype, np.integer):
        info = np.iinfo(np.int32)
        if array.size and (array.max() > info.max or array.min() < info.min):
            return f"constant {name!r} does not fit into int32"
        return None
    if not narrow or not np.issubdtype(array.dtype, np.floating):
        return None
    finite = np.abs(array[np.isfinite(array)])
    if finite.size and finite.max() > FLOAT16_MAX:
        return f"constant {name!r} reaches {finite.max():.3g}, past float16; use fp32"
    return None


def reason(node: ir.Node, target: Target, precision: str) -> str | None:
    """Why a node cannot be lowered; ``None`` if it can."""
    name = key(node)
    rule = RULES.get(name)
    if rule is None:
        return f"operator {name} has no Core ML lowering"
    if name in target.exclude_ops:
        return f"the device file excludes operator {name}"
    # A transpose through many axes is written with fewer: its inner values do not exist.
    unseen = wide_transpose(node) is not None
    for value in _tensors(node, rule):
        found = _tensor_reason(value, _ANY_RANK if unseen else target.max_rank)
        if found is not None:
            return found
    absent = [name for name in rule.needs if name not in node.attributes]
    if absent:
        return f"attribute {absent[0]} is not explicit (docs/canonical.md)"
    refused = rule.refuse(node) or _release_reason(node, rule, target)
    if refused is not None:
        return refused
    found = rule.narrow(node) if precision != "fp32" else None
    return found or _constants_reason(node, rule, precision)


def _release_reason(node: ir.Node, rule: Rule, target: Target) -> str | None:
    system, since = target.options.get("os", ""), rule.since(node)
    if system.isdigit() and int(system) < since:
        return f"{node.op_type} of a tensor exists from iOS {since} on; choose os={since}"
    return None


def _constants_reason(node: ir.Node, rule: Rule, precision: str) -> str | None:
    narrow = precision != "fp32" and not rule.saturates
    for value in node.inputs[: rule.numbers]:
        array = constant(value)
        if array is None or value is None:
            continue
        found = _constant_reason(array, str(value.name), narrow)
        if found is not None:
            return found
    return None
