"""Fix the input shapes of a model and infer the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgevit.errors import InputError
from edgevit.registry import nearest

if TYPE_CHECKING:
    import onnx

__all__ = ["bind_shapes", "infer_shapes"]

# Constants up to this size (elements) are seen by shape inference: shapes, axes, sizes.
_SMALL = 1024
# Operators whose output is like their first input, and for which ONNX infers nothing.
_LIKE_INPUT = frozenset({"GroupNormalization"})
# No tensor of an edge model is larger; a wrong shape quickly is (bytes).
_MAX_BYTES = 1 << 32


def bind_shapes(model: ir.Model, shapes: Mapping[str, tuple[int, ...]], file: str) -> None:
    """Give every graph input a static shape, in place; outputs lose their symbolic ones.

    A named dimension bound by one input is bound in all others.

    Args:
        model: The model.
        shapes: Input name -> full shape.
        file: Named in errors.

    Raises:
        InputError: Unknown input, wrong rank, a conflict, or a dimension left open.
    """
    names = [v.name or "" for v in model.graph.inputs]
    for name in shapes:
        if name not in names:
            raise InputError(
                f"{file}: --shape names the unknown input {name!r}", hint=nearest(name, names)
            )
    symbols: dict[str, int] = {}
    for value in model.graph.inputs:
        _bind_given(value, shapes.get(value.name or ""), symbols, file)
    for value in model.graph.inputs:
        _bind_rest(value, symbols, file)
    for value in model.graph.outputs:
        if value.producer() is not None:  # else an input or a constant: its shape is known
            value.shape = None


def _bind_given(
    value: ir.Value, given: tuple[int, ...] | None, symbols: dict[str, int], file: str
) -> None:
    if given is None:
        return
    where = f"{file}: input {value.name!r}"
    dims: Sequence[object] = [None] * len(given) if value.shape is None else _dims(value.shape)
    if len(dims) != len(given):
        raise InputError(
            f"{where} has rank {len(dims)} ({_text(dims)}), --shape gives {len(given)} numbers"
        )
    if any(n < 1 for n in given):
        raise InputError(f"{where}: --shape gives {given}, expected positive numbers")
    for dim, number in zip(dims, given, strict=True):
        _bind_dim(dim, number, symbols, where)
    value.shape = ir.Shape(given)


def _bind_dim(dim: object, number: int, symbols: dict[str, int], where: str) -> None:
    if isinstance(dim, int) and dim != number:
        raise InputError(
            f"{where}: --shape gives {number} where the model has the fixed dimension {dim}",
            hint="only open dimensions can be bound; export the model again to change others",
        )
    symbol = _symbol(dim)
    if symbol is None:
        return
    if symbols.setdefault(symbol, number) != number:
        raise InputError(
            f"{where}: dimension {symbol!r} is given as {number} and as {symbols[symbol]}"
        )


def _symbol(dim: object) -> str | None:
    name = dim.value if isinstance(dim, ir.SymbolicDim) else None
    # Some exporters name every open dimension "?": that says nothing about equality.
    return name if isinstance(name, str) and name.strip("?") else None


def _dims(shape: ir.Shape) -> list[object]:
    """The dimensions; some exporters write -1 for an open one."""
    return [None if isinstance(d, int) and d == -1 else d for d in shape.dims]


def _text(dims: Sequence[object]) -> str:
    return ",".join(str(d) if isinstance(d, int) else _symbol(d) or "?" for d in dims)


def _bind_rest(value: ir.Value, symbols: Mapping[str, int], file: str) -> None:
    where = f"{file}: input {value.name!r}"
    if value.shape is None:
        raise InputError(
            f"{where} has no shape", hint=f"give it: --shape {value.name}=1,3,224,224"
        )
    dims = [
        d if isinstance(d, int) else symbols.get(_symbol(d) or "", d)
        for d in _dims(value.shape)
    ]
    open_dims = [i for i, d in enumerate(dims) if not isinstance(d, int)]
    if open_dims:
        example = _example(dims)
        raise InputError(
            f"{where}: dimension {open_dims[0]} ({_text(dims)[:200]}) is symbolic",
            hint=f"bind it, e.g. --shape {value.name}={example}",
        )
    sizes = [int(d) for d in dims if isinstance(d, int)]
    if any(d < 1 for d in sizes):
        raise InputError(f"{where} has shape {sizes}, expected positive dimensions")
    _check_size(sizes, value, where)
    value.shape = ir.Shape(sizes)


def _example(dims: Sequence[object]) -> str:
    """Fixed dimensions as they are; open ones as a batch, else as an image side."""
    filled = [d if isinstance(d, int) else (1 if i == 0 else 224) for i, d in enumerate(dims)]
    if len(dims) == 4 and not isinstance(dims[1], int):
        filled[1] = 3
    return ",".join(str(d) for d in filled)


def _check_size(sizes: Sequence[int], value: ir.Value, where: str) -> None:
    width = 64 if value.dtype is None else value.dtype.bitwidth
    if math.prod(sizes) * width > 8 * _MAX_BYTES:
        raise InputError(
            f"{where} has shape {sizes}, more than {_MAX_BYTES >> 30} GiB: refused"
        )


def infer_shapes(model: ir.Model, file: str) -> None:
    """Infer dtypes and shapes of all values, in place.

    Large weights are not copied: inference sees their shapes only.

    Raises:
        InputError: Nodes whose inputs or attributes contradict each other, or a tensor
            larger than 4 GiB.
    """
    inferred = _infer(_skeleton(model), file)
    found = {v.name: v for v in [*inferred.graph.value_info, *inferred.graph.output]}
    for node in model.graph:
        for out in node.outputs:
            if out.name in found:
                _take(out, found[out.name].type, f"{file}: value {out.name!r}")


def _infer(skeleton: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """Infer with the values of small integer tensors, else from shapes alone.

    ONNX follows values through arithmetic as if every tensor were a vector: a column of 400
    times a row of 32 is a contradiction to it. What is wrong in the model itself is wrong
    without values too; what stays open is inferred after constants are folded.
    """
    import onnx

    known = (onnx.shape_inference.InferenceError, ValueError, RuntimeError)
    for values in (True, False):
        try:
            return onnx.shape_inference.infer_shapes(
                skeleton, check_type=True, strict_mode=True, data_prop=values
            )
        except known as e:
            if not values:
                text = " ".join(str(e).split())[:400]
                raise InputError(f"{file}: the model contradicts itself: {text}") from e
    raise AssertionError("both ways return or raise")


def _take(value: ir.Value, proto: object, where: str) -> None:
    from onnx_ir import serde

    dtype = serde.deserialize_type_proto_for_type(proto)
    shape = serde.deserialize_type_proto_for_shape(proto)
    if dtype is not None:
        value.type = dtype
    value.shape = shape
    sizes = [int(d) for d in shape if isinstance(d, int)] if shape is not None else []
    if any(d < 0 for d in sizes):
        raise InputError(f"{where} would have shape {sizes}: the sizes contradict each other")
    _check_size(sizes, value, where)


def _stand_in(node: onnx.NodeProto) -> None:
    """Turn a node into one whose shape inference is known to work."""
    node.op_type = "Identity"
    del node.input[1:], node.attribute[:]


def _skeleton(model: ir.Model) -> onnx.ModelProto:
    """The model as protobuf with its large constants turned into inputs."""
    import onnx
    from onnx_ir import serde

    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.graph.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    graph = proto.graph
    graph.name = "shapes"
    for value in model.graph.inputs:
        serde.serialize_value_into(graph.input.add(), value)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.size <= _SMALL:
            serde.serialize_tensor_into(graph.initializer.add(), tensor)
            graph.initializer[-1].name = value.name or ""
        else:
            serde.serialize_value_into(graph.input.add(), value)
    for node in model.graph:
        serde.serialize_node_into(graph.node.add(), node)
        if node.op_type in _LIKE_INPUT and not node.domain:
            _stand_in(graph.node[-1])
        if node.domain:  # nothing infers what functions of ours give; passes say so
            for out in node.outputs:
                serde.serialize_value_into(graph.value_info.add(), out)
    for value in model.graph.outputs:
        serde.serialize_value_into(graph.output.add(), value)
    return proto
