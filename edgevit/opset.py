"""Raise (or relabel) a model to operator set 23, without copying a weight.

Most operators only gained data types or defaulted attributes between 11 and 23; those keep
their node. The others are listed in ``_ADAPTERS`` with the version that changed them.
Source: the operator changelog of ONNX, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.errors import InputError
from edgevit.model import fresh_name
from edgevit.schemas import OPSET

Adapters = Mapping[str, Mapping[int, Callable[[ir.Node, str], None]]]

__all__ = ["ADAPTED", "raise_opset", "settle_axes"]

_REDUCE = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
)


def raise_opset(model: ir.Model, version: int, file: str) -> None:
    """Rewrite the nodes of ``model`` in place from ``version`` to operator set 23.

    Values keep their names. Operators whose rewrite needs shapes keep their attributes until
    ``settle_axes``, which follows shape inference.

    Args:
        model: One graph, no functions, operators checked at ``version``.
        version: Its operator set, 11 or later.
        file: Named in errors.

    Raises:
        InputError: A node whose meaning operator set 23 cannot express.
    """
    for node in list(model.graph):
        where = f"{file}: node {node.name!r} ({node.op_type})"
        _adapt(node, _ADAPTERS, version, where)
        if version > OPSET:
            _check_lowerable(node, version, where)
    model.graph.opset_imports.clear()
    model.graph.opset_imports[""] = OPSET
    model.ir_version = 11


def settle_axes(model: ir.Model, version: int, file: str) -> None:
    """Second half of ``raise_opset``, for operators whose old meaning depends on the rank.

    Args:
        model: After ``raise_opset`` and shape inference.
        version: The operator set it came from.
        file: Named in errors.

    Raises:
        InputError: A node whose meaning operator set 23 cannot express.
    """
    for node in list(model.graph):
        _adapt(node, _SHAPED, version, f"{file}: node {node.name!r} ({node.op_type})")


def _adapt(node: ir.Node, adapters: Adapters, version: int, where: str) -> None:
    for boundary, adapt in adapters.get(node.op_type, {}).items():
        if version < boundary <= OPSET:
            adapt(node, where)


def _since(op_type: str, version: int) -> int:
    import onnx

    return int(onnx.defs.get_schema(op_type, version, "").since_version)


def _check_lowerable(node: ir.Node, version: int, where: str) -> None:
    """A node of a newer operator set must say nothing that 23 cannot say."""
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, OPSET, "")
    except onnx.defs.SchemaError as e:
        raise InputError(
            f"{where} needs operator set {_since(node.op_type, version)}",
            hint=f"export the model with opset {OPSET}",
        ) from e
    newer = sorted(set(node.attributes) - set(schema.attributes))
    if newer or len(node.inputs) > schema.max_input:
        what = f"attribute {newer[0]!r}" if newer else f"input {len(node.inputs)}"
        raise InputError(
            f"{where}: {what} does not exist in operator set {OPSET}",
            hint=f"export the model with opset {OPSET}",
        )


def _int_constant(node: ir.Node, name: str, values: list[int]) -> ir.Value:
    graph = _graph(node)
    full = fresh_name(graph, f"{node.outputs[0].name}.opset.{name}")
    tensor = ir.tensor(np.array(values, np.int64), name=full)
    value = ir.val(full, ir.DataType.INT64, [len(values)], const_value=tensor)
    graph.register_initializer(value)
    return value


def _set_input(node: ir.Node, index: int, value: ir.Value) -> None:
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def _attribute_to_input(attribute: str, index: int) -> Callable[[ir.Node, str], None]:
    """An integer-list attribute that became an input."""

    def adapt(node: ir.Node, where: str) -> None:
        found = node.attributes.pop(attribute, None)
        if found is not None:
            values = list(found.as_ints())
            _set_input(node, index, _int_constant(node, attribute, values))

    return adapt


def _softmax_13(node: ir.Node, where: str) -> None:
    """Until 13 the input was coerced to 2-D at ``axis`` (default 1).

    With ``axis`` the last one, or only ones behind it, that is the new meaning; else the
    axes are merged for it.
    """
    axis = node.attributes.get_int("axis", 1) or 0
    x = node.inputs[0]
    shape = None if x is None else x.shape
    if shape is None:
        raise InputError(
            f"{where}: the rank of its input is unknown, and it counts before opset 13",
            hint="export the model with opset 13 or later",
        )
    rank = len(shape)
    axis = axis + rank if axis < 0 else axis
    wide = [i for i in range(axis, rank) if shape[i] != 1]
    if len(wide) > 1:
        _merge_axes(node, shape, axis, where)
        return
    # Over axes of size one only, any of them means the same.
    node.attributes["axis"] = ir.AttrInt64("axis", wide[0] if wide else rank - 1)


def _merge_axes(node: ir.Node, shape: ir.Shape, axis: int, where: str) -> None:
    """Reshape the axes from ``axis`` on to one, normalize over it, and reshape back."""
    if not shape.is_static():
        raise InputError(
            f"{where}: normalizes over axes {axis} to {len(shape) - 1} at once, as before "
            f"opset 13, and their sizes {shape} are not known",
            hint="export the model with opset 13 or later",
        )
    sizes = [int(d) for d in shape.numpy()]
    flat = [*sizes[:axis], math.prod(sizes[axis:])]
    node.attributes["axis"] = ir.AttrInt64("axis", axis)
    out = node.outputs[0]
    ahead = _reshape(node, "flat", flat)
    behind = _reshape(node, "shape", sizes)
    back = behind.outputs[0]
    out.replace_all_uses_with(back, replace_graph_outputs=True)
    ahead.replace_input_with(0, node.inputs[0])
    node.replace_input_with(0, ahead.outputs[0])
    behind.replace_input_with(0, out)
    node.prepend(ahead)
    node.append(behind)
    name = back.name = out.name
    out.name = None
    out.name = fresh_name(_graph(node), f"{name}.opset.merged")
    out.shape = ir.Shape(flat)


def _reshape(node: ir.Node, role: str, sizes: list[int]) -> ir.Node:
    """A Reshape to ``sizes`` without its data input, of the dtype of ``node``."""
    made = ir.node("Reshape", [None, _int_constant(node, role, sizes)])
    made.name = f"{node.name}.{role}"
    out = made.outputs[0]
    out.name = fresh_name(_graph(node), f"{node.outputs[0].name}.opset.{role}.data")
    out.shape, out.type = ir.Shape(sizes), node.outputs[0].type
    return made


def _graph(node: ir.Node) -> ir.Graph:
    if not isinstance(node.graph, ir.Graph):
        raise TypeError(f"node {node.name!r} is not in a graph")
    return node.graph


def _split_18(node: ir.Node, where: str) -> None:
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _batch_norm_14(node: ir.Node, where: str) -> None:
    """Training outputs (mean, var, saved_mean, saved_var) left in inference graphs."""
    if any(out.uses() or out.is_graph_output() for out in node.outputs[1:]):
        raise InputError(
            f"{where}: its training outputs are used; expected an inference model"
        )
    if len(node.outputs) > 1:
        node.resize_outputs(1)


def _drop_ratio(node: ir.Node, where: str) -> None:
    node.attributes.pop("ratio", None)


def _resize_13(node: ir.Node, where: str) -> None:
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_half_pixel_for_nn":
        raise InputError(f"{where}: mode 'tf_half_pixel_for_nn' was removed in opset 13")


def _roi_align_16(node: ir.Node, where: str) -> None:
    key = "coordinate_transformation_mode"
    node.attributes[key] = ir.AttrString(key, "output_half_pixel")


def _grid_sample_20(node: ir.Node, where: str) -> None:
    mode = node.attributes.get_string("mode", "bilinear")
    renamed = {"bilinear": "linear", "bicubic": "cubic"}.get(mode or "", mode or "")
    node.attributes["mode"] = ir.AttrString("mode", renamed)


def _group_norm_21(node: ir.Node, where: str) -> None:
    """Scale and bias were per group; from 21 on they are per channel."""
    groups = node.attributes.get_int("num_groups", 0)
    x = node.inputs[0]
    channels = x.shape[1] if x is not None and x.shape is not None else None
    if not isinstance(channels, int) or not groups or channels % groups:
        raise InputError(f"{where}: {channels} channels cannot be split into {groups} groups")
    for index in (1, 2):
        old = node.inputs[index]
        if old is None or old.const_value is None:
            raise InputError(f"{where}: input {index} must be constant before opset 21")
        array = np.repeat(old.const_value.numpy(), channels // groups)
        _replace_constant(node, index, array)


def _replace_constant(node: ir.Node, index: int, array: np.ndarray[Any, Any]) -> None:
    graph = _graph(node)
    name = fresh_name(graph, f"{node.outputs[0].name}.opset.{index}")
    tensor = ir.tensor(array, name=name)
    value = ir.val(name, tensor.dtype, list(array.shape), const_value=tensor)
    graph.register_initializer(value)
    node.replace_input_with(index, value)


def _refuse_dft(node: ir.Node, where: str) -> None:
    raise InputError(f"{where}: DFT before opset 20 is not supported")


# Operator -> the version that changed its meaning or form -> what brings a node there.
_ADAPTERS: Adapters = {
    **{name: {18: _attribute_to_input("axes", 1)} for name in _REDUCE},
    "ReduceSum": {13: _attribute_to_input("axes", 1)},
    "Squeeze": {13: _attribute_to_input("axes", 1)},
    "Unsqueeze": {13: _attribute_to_input("axes", 1)},
    "Split": {13: _attribute_to_input("split", 1), 18: _split_18},
    "BatchNormalization": {14: _batch_norm_14},
    "Dropout": {12: _drop_ratio},
    "Resize": {13: _resize_13},
    "RoiAlign": {16: _roi_align_16},
    "GridSample": {20: _grid_sample_20},
    "DFT": {20: _refuse_dft},
}
# The same, for those that need the shapes of their inputs.
_SHAPED: Adapters = {
    "Softmax": {13: _softmax_13},
    "LogSoftmax": {13: _softmax_13},
    "Hardmax": {13: _softmax_13},
    "GroupNormalization": {21: _group_norm_21},
}

# (operator, version) pairs handled above; a test compares them with the schema history.
ADAPTED = frozenset(
    (name, at) for name, table in [*_ADAPTERS.items(), *_SHAPED.items()] for at in table
)
