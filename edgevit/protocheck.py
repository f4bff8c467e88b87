"""Structural checks of a parsed model file: names, order, attributes, tensors, functions.

Whatever passes here can be handed to libraries that trust their input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevit.errors import InputError
from edgevit.tensorcheck import MAX_RANK, check_attribute, check_tensor

if TYPE_CHECKING:
    import onnx

__all__ = ["check_structure", "describe"]

_CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
# The largest vision transformers have a few thousand operators; a file of some hundred bytes
# can ask for 2^40 of them by functions that call functions.
_MAX_NODES = 50_000
# Naming the values of a function inlined n times takes n^2 steps.
_MAX_COPIES = 2_000


def describe(node: onnx.NodeProto) -> str:
    """A node as named in errors: its operator, its name or its first output."""
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    label = node.name or next(iter(node.output), "")
    return f"node {label!r} ({operator})"


def check_structure(model: onnx.ModelProto, folder: Path, file: str) -> None:
    """Check everything that can be checked without knowing what the operators mean.

    Args:
        model: Parsed file.
        folder: Its folder, for external data.
        file: Its name, for messages.

    Raises:
        InputError: The first thing that is wrong, with where it is.
    """
    _check_text(model, file)
    graph = model.graph
    if not model.HasField("graph") or not (graph.node or graph.output):
        raise InputError(f"{file}: the file holds no graph", hint="is this an ONNX model?")
    if not graph.node:
        raise InputError(f"{file}: the graph has no operators")
    if len(graph.node) > _MAX_NODES:
        raise InputError(f"{file}: {len(graph.node)} operators, expected at most {_MAX_NODES}")
    if not graph.output:
        raise InputError(f"{file}: the graph has no outputs")
    if graph.sparse_initializer:
        raise InputError(f"{file}: sparse initializers are not supported")
    _check_control_flow(model, file)
    for tensor in graph.initializer:
        check_tensor(tensor, folder, f"{file}: initializer {tensor.name!r}")
    _check_inputs(graph, file)
    _check_nodes(graph.node, folder, file, in_function=False)
    _check_graph_names(graph, file)
    _check_functions(model, folder, file)


def _check_text(model: onnx.ModelProto, file: str) -> None:
    """Names must be text: protobuf hands out damaged ones as bytes, or fails on reading."""
    bad = _damaged_text(model)
    if bad is not None:
        raise InputError(
            f"{file}: a name in the file is not UTF-8 text: {bad[:40]!r}",
            hint="the file is damaged",
        )


def _damaged_text(message: Any) -> bytes | None:
    """The first string field that is not UTF-8, depth first, without the data of tensors."""
    tensor = message.DESCRIPTOR.name == "TensorProto"
    for field, value in _tensor_fields(message) if tensor else message.ListFields():
        single = isinstance(value, (str, bytes)) or hasattr(value, "ListFields")
        if field.message_type is None and field.type != field.TYPE_STRING:
            continue
        for part in [value] if single else value:
            bad = _damaged_part(field, part)
            if bad is not None:
                return bad
    return None


def _damaged_part(field: Any, part: Any) -> bytes | None:
    if field.message_type is not None:
        return _damaged_text(part)
    damaged = field.type == field.TYPE_STRING and isinstance(part, bytes)
    return part if damaged else None


def _tensor_fields(tensor: onnx.TensorProto) -> list[tuple[Any, Any]]:
    fields = tensor.DESCRIPTOR.fields_by_name
    names = ("name", "doc_string", "external_data", "metadata_props")
    return [(fields[name], getattr(tensor, name)) for name in names]


def _check_control_flow(model: onnx.ModelProto, file: str) -> None:
    found = [
        describe(node)
        for node in _all_nodes(model)
        if node.op_type in _CONTROL_FLOW and node.domain in ("", "ai.onnx")
    ]
    if found:
        raise InputError(
            f"{file}: control flow is not supported: {', '.join(found)}",
            hint="export the model with fixed input shapes, or simplify it first",
        )


def _all_nodes(model: onnx.ModelProto) -> Iterable[onnx.NodeProto]:
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def _check_inputs(graph: onnx.GraphProto, file: str) -> None:
    """Each graph input must be a tensor of numbers."""
    import onnx_ir as ir

    for value in graph.input:
        where = f"{file}: input {value.name!r}"
        if value.type.WhichOneof("value") != "tensor_type":
            kind = value.type.WhichOneof("value") or "nothing"
            raise InputError(f"{where} is of kind {kind}, expected a tensor")
        code = value.type.tensor_type.elem_type
        known = code in ir.DataType.__members__.values()
        dtype = ir.DataType(code) if known else ir.DataType.UNDEFINED
        if not (dtype.is_floating_point() or dtype.is_integer() or dtype == ir.DataType.BOOL):
            raise InputError(f"{where} has data type {code}, expected numbers or bool")
        if len(value.type.tensor_type.shape.dim) > MAX_RANK:
            raise InputError(f"{where} has more than {MAX_RANK} dimensions")


def _check_nodes(
    nodes: Sequence[onnx.NodeProto], folder: Path, file: str, *, in_function: bool
) -> None:
    for node in nodes:
        where = f"{file}: {describe(node)}"
        names = [a.name for a in node.attribute]
        if len(set(names)) != len(names):
            raise InputError(f"{where} has an attribute twice: {sorted(names)}")
        if not node.op_type:
            raise InputError(f"{where} has no operator type")
        for attribute in node.attribute:
            at = f"{where}, attribute {attribute.name!r}"
            check_attribute(attribute, folder, at, in_function=in_function)


def _check_graph_names(graph: onnx.GraphProto, file: str) -> None:
    inputs = [v.name for v in graph.input]
    initializers = [t.name for t in graph.initializer]
    outputs = [v.name for v in graph.output]
    for kind, names in (("input", inputs), ("initializer", initializers), ("output", outputs)):
        _refuse_repeats(names, f"{file}: {kind}")
    # An initializer may carry an input's name: then it is that input's default value.
    sources = set(inputs) | set(initializers)
    _check_flow(graph.node, sources, outputs, file)


def _refuse_repeats(names: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise InputError(f"{what} without a name")
        if name in seen:
            raise InputError(f"{what} {name!r} is defined twice")
        seen.add(name)


def _check_flow(
    nodes: Sequence[onnx.NodeProto], sources: set[str], outputs: Sequence[str], where: str
) -> None:
    """Each value has one producer, each use a producer, and no node depends on itself."""
    producer: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in producer or name in sources:
                raise InputError(
                    f"{where}: value {name!r} is defined twice, again by {describe(node)}"
                )
            producer[name] = index
    for node in nodes:
        for name in filter(None, node.input):
            if name not in producer and name not in sources:
                raise InputError(
                    f"{where}: {describe(node)} reads {name!r}, which nothing makes"
                )
    for name in outputs:
        if name not in producer and name not in sources:
            raise InputError(f"{where}: output {name!r} is made by nothing")
    _refuse_cycles(nodes, producer, where)


def _refuse_cycles(
    nodes: Sequence[onnx.NodeProto], producer: dict[str, int], where: str
) -> None:
    before = {
        index: {producer[name] for name in node.input if name in producer}
        for index, node in enumerate(nodes)
    }
    try:
        TopologicalSorter(before).prepare()
    except CycleError as e:
        cycle = " -> ".join(describe(nodes[i]) for i in reversed(e.args[1]))
        raise InputError(f"{where}: the graph has a cycle: {cycle}") from e


def _check_functions(model: onnx.ModelProto, folder: Path, file: str) -> None:
    """Functions are well-formed, do not call themselves, and stay small when inlined."""
    ids = [(f.domain, f.name, f.overload) for f in model.functions]
    for function in model.functions:
        where = f"{file}: function {function.domain}.{function.name}"
        _refuse_repeats(list(function.input), f"{where}: input")
        _check_nodes(function.node, folder, where, in_function=True)
        _check_flow(function.node, set(function.input), list(function.output), where)
    if len(set(ids)) != len(ids):
        raise InputError(f"{file}: a function is defined twice")
    calls = {
        key: [(n.domain, n.op_type, n.overload) for n in function.node]
        for key, function in zip(ids, model.functions, strict=True)
    }
    _check_expansion(model, calls, file)


def _check_expansion(
    model: onnx.ModelProto,
    calls: dict[tuple[str, str, str], list[tuple[str, str, str]]],
    file: str,
) -> None:
    sorter = TopologicalSorter({k: [c for c in v if c in calls] for k, v in calls.items()})
    try:
        order = list(sorter.static_order())
    except CycleError as e:
        raise InputError(f"{file}: function {e.args[1][0]} calls itself") from e
    # How often each function is copied: its callers come after it in ``order``.
    main = ((n.domain, n.op_type, n.overload) for n in model.graph.node)
    times = Counter(key for key in main if key in calls)
    for key in reversed(order):
        for callee in calls[key]:
            times[callee] += times[key]
    copies = max((times[key] for key in calls), default=0)
    total = sum(n for key, n in times.items() if key not in calls) + len(model.graph.node)
    if copies > _MAX_COPIES or total > _MAX_NODES:
        raise InputError(
            f"{file}: {total} operators after inlining with {copies} copies of one function, "
            f"expected at most {_MAX_NODES} and {_MAX_COPIES}"
        )
