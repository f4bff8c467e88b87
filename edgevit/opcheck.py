"""Contradictions inside single nodes that shape inference lets through.

Rules are those of the operator documentation, https://onnx.ai/onnx/operators/. A value whose
shape is not known yet is not judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import onnx_ir as ir

from edgevit.errors import InputError
from edgevit.model import constant

__all__ = ["check_nodes"]

_AUTO_PAD = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
     "RandomUniformLike"}
)  # fmt: skip
# Attribute -> what it may be; one name may mean other things in other operators.
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "auto_pad": _AUTO_PAD,
    "approximate": ("none", "tanh"),
}
_RECURRENT = ("forward", "reverse", "bidirectional")
_DIRECTIONS: Mapping[str, tuple[str, ...]] = {
    "BitShift": ("LEFT", "RIGHT"),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _RECURRENT),
}


def check_nodes(model: ir.Model, file: str) -> None:
    """Check attributes against shapes and constants.

    Args:
        model: Operator set 23, shapes inferred.
        file: Named in errors.

    Raises:
        InputError: The first node that contradicts itself, or whose result is random.
    """
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        problem = _random(node)
        if problem is not None:
            raise InputError(
                f"{file}: node {node.name!r} ({node.op_type}): {problem}",
                hint="nothing can be compared with it; make the number a model input",
            )
    for node in model.graph:
        problem = _choices(node)
        check = _CHECKS.get(node.op_type)
        if problem is None and check is not None:
            problem = check(node)
        if problem is not None:
            raise InputError(f"{file}: node {node.name!r} ({node.op_type}): {problem}")


def _random(node: ir.Node) -> str | None:
    if node.domain:
        return None
    if node.op_type in _RANDOM or (node.op_type == "Dropout" and _drops(node)):
        return "its result is random"
    return None


def _drops(node: ir.Node) -> bool:
    """Whether a Dropout is in training mode and its ratio is not 0."""
    given = [constant(v) for v in node.inputs[1:3]]
    if len(given) < 2 or given[1] is None or not given[1].any():
        return False
    ratio = node.inputs[1]
    return ratio is None or given[0] is None or bool(given[0].any())


def _choices(node: ir.Node) -> str | None:
    direction = _DIRECTIONS.get(node.op_type)
    choices = _CHOICES if direction is None else {**_CHOICES, "direction": direction}
    for name, allowed in choices.items():
        attribute = node.attributes.get(name)
        if attribute is None or attribute.type != ir.AttributeType.STRING:
            continue
        if attribute.as_string() not in allowed:
            return f"{name} is {attribute.as_string()!r}, expected one of {', '.join(allowed)}"
    return None


def _shape(node: ir.Node, index: int) -> tuple[int, ...] | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(d) for d in value.shape.numpy())


def _ints(node: ir.Node, name: str) -> tuple[int, ...] | None:
    attribute = node.attributes.get(name)
    return None if attribute is None else tuple(attribute.as_ints())


def _window(node: ir.Node, spatial: int) -> str | None:
    """Strides, dilations, kernel and pads of a convolution or pooling."""
    for name in ("kernel_shape", "strides", "dilations"):
        found = _ints(node, name)
        if found is not None and (len(found) != spatial or min(found, default=1) < 1):
            return f"{name} is {list(found)}, expected {spatial} positive numbers"
    for name, length in (("pads", 2 * spatial), ("output_padding", spatial)):
        found = _ints(node, name)
        if found is not None and (len(found) != length or min(found, default=0) < 0):
            return f"{name} is {list(found)}, expected {length} numbers >= 0"
    return None


def _empty_output(node: ir.Node) -> str | None:
    out = node.outputs[0]
    shape = out.shape
    if shape is not None and len(shape) == 1 and out.dtype is ir.DataType.INT64:
        return None  # a list of sizes may be empty: shape arithmetic, folded away
    if shape is not None and any(isinstance(d, int) and d < 1 for d in shape):
        return f"its output would have the shape {shape}"
    return None


def _convolution(node: ir.Node) -> str | None:
    x, w, bias = _shape(node, 0), _shape(node, 1), _shape(node, 2)
    if x is None or w is None:
        return None
    group = node.attributes.get_int("group", 1) or 0
    transposed = node.op_type == "ConvTranspose"
    if len(x) < 3 or len(w) != len(x):
        return f"input has shape {x}, weight {w}: expected equal ranks of at least 3"
    # Weight: [out, in / group, ...], of a transposed convolution [in, out / group, ...].
    channels = w[0] if transposed else w[1] * group
    if group < 1 or channels != x[1] or w[0] % group:
        return f"{x[1]} input channels, weight {w} and group {group} do not fit"
    kernel = _ints(node, "kernel_shape")
    if kernel is not None and kernel != w[2:]:
        return f"kernel_shape {list(kernel)} is not that of the weight {w}"
    outputs = w[1] * group if transposed else w[0]
    if bias is not None and bias != (outputs,):
        return f"bias has shape {bias}, expected ({outputs},)"
    return _window(node, len(x) - 2) or _empty_output(node)


def _pool(node: ir.Node) -> str | None:
    x = _shape(node, 0)
    if x is None:
        return None
    if len(x) < 3:
        return f"input has shape {x}, expected a rank of at least 3"
    problem = _window(node, len(x) - 2)
    kernel, pads = _ints(node, "kernel_shape") or (), _ints(node, "pads") or ()
    if problem is None and any(p >= k for p, k in zip(pads, kernel * 2, strict=False)):
        return f"pads {list(pads)} are not smaller than the kernel {list(kernel)}"
    return problem or _empty_output(node)


def _per_channel(node: ir.Node) -> str | None:
    """Normalizations whose parameters have one number per channel (axis 1)."""
    x = _shape(node, 0)
    if x is None:
        return None
    if len(x) < 2:
        return f"input has shape {x}, expected a rank of at least 2"
    for index in range(1, len(node.inputs)):
        found = _shape(node, index)
        if found is not None and found != (x[1],):
            return f"input {index} has shape {found}, expected ({x[1]},)"
    groups = node.attributes.get_int("num_groups", 1) or 0
    if groups < 1 or x[1] % groups:
        return f"{x[1]} channels cannot be split into {groups} groups"
    return _epsilon(node)


def _epsilon(node: ir.Node) -> str | None:
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    if epsilon is None or not math.isfinite(epsilon) or epsilon < 0:
        return f"epsilon is {epsilon}, expected a finite number >= 0"
    return None


def _layer_norm(node: ir.Node) -> str | None:
    x = _shape(node, 0)
    axis = node.attributes.get_int("axis", -1) or 0
    if x is None:
        return _epsilon(node)
    if not -len(x) <= axis < len(x):
        return f"axis {axis} is out of range for the shape {x}"
    rest = x[axis:] if axis < 0 else x[axis - len(x) :]
    for index in range(1, len(node.inputs)):
        found = _shape(node, index)
        if found is not None and not _fits(found, rest):
            return f"input {index} has shape {found}, expected {rest}"
    return _epsilon(node)


def _fits(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    """Whether ``small`` broadcasts to ``large`` without changing it."""
    pairs = zip(reversed(small), reversed(large), strict=False)
    return len(small) <= len(large) and all(a in (1, b) for a, b in pairs)


def _reshape(node: ir.Node) -> str | None:
    x, y = _shape(node, 0), node.outputs[0].shape
    if x is None or y is None or not y.is_static():
        return None
    target = tuple(int(d) for d in y.numpy())
    if math.prod(target) != math.prod(x):
        return f"{math.prod(x)} elements of shape {x} do not fit into the shape {target}"
    return _empty_output(node)


def _axis(node: ir.Node) -> str | None:
    x = _shape(node, 0)
    axis = node.attributes.get_int("axis", 0) or 0
    if x is not None and x and not -len(x) <= axis < len(x):
        return f"axis {axis} is out of range for the shape {x}"
    return None


def _gather(node: ir.Node) -> str | None:
    x, indices = _shape(node, 0), constant(node.inputs[1])
    problem = _axis(node)
    if problem is not None or x is None or indices is None or not indices.size:
        return problem
    size = x[node.attributes.get_int("axis", 0) or 0]
    if indices.min() < -size or indices.max() >= size:
        return f"indices reach from {indices.min()} to {indices.max()}, axis has size {size}"
    return None


def _slice(node: ir.Node) -> str | None:
    steps = constant(node.inputs[4]) if len(node.inputs) > 4 else None
    if steps is not None and not steps.all():
        return "a step is 0"
    return _empty_output(node)


def _pad(node: ir.Node) -> str | None:
    x, pads = _shape(node, 0), constant(node.inputs[1])
    if x is None or pads is None:
        return None
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    count = len(x) if axes is None else axes.size
    if pads.size != 2 * count:
        return f"{pads.size} pads for {count} axes, expected {2 * count}"
    return _empty_output(node)


def _gemm(node: ir.Node) -> str | None:
    """Flags are 0 or 1; ``C`` is broadcast to the product and never widens it."""
    for name in ("transA", "transB"):
        flag = node.attributes.get_int(name, 0)
        # Some readers keep the low 32 bits of other numbers and some do not.
        if flag not in (0, 1):
            return f"{name} is {flag}, expected 0 or 1"
    added, out = _shape(node, 2), node.outputs[0].shape
    if added is None or out is None or not out.is_static():
        return None
    product = tuple(int(d) for d in out.numpy())
    if not _fits(added, product):
        return f"C has shape {added}, which does not broadcast to the product's {product}"
    return None


_CHECKS: Mapping[str, Callable[[ir.Node], str | None]] = {
    "AveragePool": _pool,
    "BatchNormalization": _per_channel,
    "Concat": _axis,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Expand": _empty_output,
    "Gather": _gather,
    "Gemm": _gemm,
    "GroupNormalization": _per_channel,
    "Hardmax": _axis,
    "InstanceNormalization": _per_channel,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _axis,
    "LpPool": _pool,
    "MaxPool": _pool,
    "Pad": _pad,
    "RMSNormalization": _layer_norm,
    "Reshape": _reshape,
    "Resize": _empty_output,
    "Slice": _slice,
    "Softmax": _axis,
    "Split": _axis,
    "Tile": _empty_output,
}
