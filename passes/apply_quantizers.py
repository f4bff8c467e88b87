"""Put planned quantizers into a graph. The only code that does; it decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.edits import (
    Edit,
    KeepFloat,
    QuantizeActivation,
    QuantizeAsRun,
    QuantizeWeight,
    Remark,
    ReplaceConstant,
)
from edgevit.errors import InternalError
from edgevit.model import Names, constant, shape_of
from edgevit.passes.quantizable import NARROWED
from edgevit.pipeline import Change, Note, Outcome, Refusal
from edgevit.quantization import QParams, quantize
from edgevit.quantizers import mark_as_run

__all__ = ["apply"]

Array = np.ndarray[Any, Any]
RULE_KEY = "edgevit.rule"


def apply(model: ir.Model, edits: Sequence[Edit], rule: str) -> Outcome:
    """Apply edits in place (docs/adr/0009-quantization.md has the form of the graph).

    Args:
        model: Canonical model that the edits were planned on.
        edits: Of quantizers and constants; a ``KeepFloat`` becomes a refusal, a ``Remark`` a
            note.
        rule: Name of the pass; nodes it makes carry it.

    Raises:
        InternalError: An edit names a value that the model does not have.
    """
    graph = _Graph(model, rule)
    changes: list[Change] = []
    refusals: list[Refusal] = []
    notes = tuple(Note("", edit.text) for edit in edits if isinstance(edit, Remark))
    for edit in edits:
        if isinstance(edit, Remark):
            continue
        if isinstance(edit, KeepFloat):
            refusals.append(Refusal(rule, edit.node, edit.reason))
            continue
        if type(edit) not in _EDITORS:
            raise InternalError(f"{rule!r} planned a {type(edit).__name__}, no quantizer")
        detail = _EDITORS[type(edit)](graph, edit)
        changes.append(Change(rule, str(getattr(edit, "value", "")), detail))
    return Outcome(model, bool(changes), tuple(changes), tuple(refusals), notes)


class _Graph:
    """A graph with its values by name."""

    def __init__(self, model: ir.Model, rule: str) -> None:
        self.graph, self.rule = model.graph, rule
        self._names = Names(model.graph)
        self._values = {str(v.name): v for v in self._all()}

    def _all(self) -> Iterable[ir.Value]:
        yield from self.graph.inputs
        yield from self.graph.initializers.values()
        for node in self.graph:
            yield from node.outputs

    def value(self, name: str) -> ir.Value:
        if name not in self._values:
            raise InternalError(f"the plan of {self.rule!r} names {name!r}, not in the model")
        return self._values[name]

    def initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        fresh = self._names.fresh(name)
        value = ir.val(fresh, tensor.dtype, tensor.shape.numpy(), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def constant(self, name: str, array: Array, dtype: str | None = None) -> ir.Value:
        kind = ir.DataType.from_numpy(array.dtype) if dtype is None else _dtype(dtype)
        narrow = np.asarray(array).astype(kind.numpy())
        return self.initializer(name, ir.tensor(narrow, dtype=kind))

    def node(
        self,
        op: str,
        inputs: Sequence[ir.Value],
        like: ir.Value,
        name: str,
        dtype: ir.DataType | None,
        attributes: dict[str, int] | None = None,
    ) -> ir.Node:
        made = ir.node(op, list(inputs), attributes or {})
        made.metadata_props[RULE_KEY] = self.rule
        out = made.outputs[0]
        out.name = made.name = self._names.fresh(name)
        out.shape = like.shape
        out.type = like.type if dtype is None else ir.TensorType(dtype)
        self._values[str(out.name)] = out
        return made

    def insert(self, nodes: Sequence[ir.Node], value: ir.Value) -> None:
        """Right behind the producer of a value, or first if it has none."""
        producer = value.producer()
        if producer is not None:
            self.graph.insert_after(producer, list(nodes))
            return
        first = next(iter(self.graph))
        self.graph.insert_before(first, list(nodes))

    def rename(self, value: ir.Value, name: str) -> None:
        value.name = self._names.fresh(name)
        self._values[str(value.name)] = value

    def own(self, name: str, value: ir.Value) -> None:
        """Give a value a name that another one gave up."""
        value.name = name
        self._values[name] = value

    def drop(self, value: ir.Value) -> None:
        """Remove an initializer that nothing reads any more."""
        if not value.uses() and not value.is_graph_output():
            self.graph.initializers.pop(str(value.name), None)


def _dtype(name: str) -> ir.DataType:
    return ir.DataType[name.upper()]


def _redirect(old: ir.Value, new: ir.Value, consumers: Sequence[str]) -> None:
    """Let the named consumers (all, if none is named) read ``new``."""
    own = new.producer()
    for use in list(old.uses()):
        reader = use.node
        if consumers and str(reader.outputs[0].name) not in consumers:
            continue
        if not consumers and _leads(reader, own):
            continue
        reader.replace_input_with(use.idx, new)


def _leads(reader: ir.Node, own: ir.Node | None) -> bool:
    """Whether a reader is one of the quantizer's own nodes."""
    at = own
    while at is not None and at.op_type in ("DequantizeLinear", "QuantizeLinear", "Clip"):
        if at is reader:
            return True
        before = at.inputs[0]
        at = None if before is None else before.producer()
    return False


def _parameters(graph: _Graph, name: str, params: QParams) -> list[ir.Value]:
    scale = graph.constant(f"{name}.scale", params.scale)
    return [scale, graph.constant(f"{name}.zero_point", params.zero_point, params.dtype)]


def _axis(params: QParams) -> dict[str, int]:
    if params.axis is None:
        return {}
    block = {"block_size": params.block} if params.block else {}
    return {"axis": params.axis, **block}


def _activation(graph: _Graph, edit: QuantizeActivation) -> str:
    value, params, name = graph.value(edit.value), edit.params, edit.value
    nodes, source = [], value
    if params.narrow:
        low, high = (np.asarray(v, np.float32) for v in params.clip)
        bounds = [graph.constant(f"{name}.low", low), graph.constant(f"{name}.high", high)]
        nodes.append(graph.node("Clip", [source, *bounds], value, f"{name}{NARROWED}", None))
        source = nodes[-1].outputs[0]
    given = _parameters(graph, name, params)
    dtype = _dtype(params.dtype)
    nodes.append(
        graph.node("QuantizeLinear", [source, *given], value, f"{name}.quantized", dtype)
    )
    code = nodes[-1].outputs[0]
    nodes.append(
        graph.node("DequantizeLinear", [code, *given], value, f"{name}.dequantized", None)
    )
    result = nodes[-1].outputs[0]
    graph.insert(nodes, value)
    _redirect(value, result, edit.consumers)
    if not edit.consumers and value.is_graph_output():
        _take_output(graph, value, result)
    return f"{params.dtype} {params.low}..{params.high}, scale {float(params.scale):.4g}"


def _take_output(graph: _Graph, value: ir.Value, result: ir.Value) -> None:
    """A quantized graph output keeps its name; what was there becomes ``.raw``."""
    name = str(value.name)
    outputs = graph.graph.outputs
    index = outputs.index(value)
    graph.rename(value, f"{name}.raw")
    graph.own(name, result)
    outputs[index] = result


def _weight(graph: _Graph, edit: QuantizeWeight) -> str:
    value, params, name = graph.value(edit.value), edit.params, edit.value
    array = constant(value)
    if array is None:
        raise InternalError(f"{name!r} is planned as a weight, but is not constant")
    codes = quantize(array, params) if edit.codes is None else edit.codes
    stored = graph.constant(f"{name}.codes", codes, params.dtype)
    made = graph.node(
        "DequantizeLinear",
        [stored, *_parameters(graph, name, params)],
        value,
        f"{name}.dequantized",
        None,
        _axis(params),
    )
    made.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    readers = [use.node for use in value.uses()]
    graph.graph.insert_before(_first(graph.graph, readers), made)
    _redirect(value, made.outputs[0], edit.consumers)
    graph.drop(value)
    kind = "a channel" if params.axis is not None and not params.block else "a tensor"
    where = f"blocks of {params.block}" if params.block else kind
    return f"{params.dtype} {params.low}..{params.high}, one scale {where}"


def _as_run(graph: _Graph, edit: QuantizeAsRun) -> str:
    node = graph.value(edit.value).producer()
    if node is None:
        raise InternalError(f"{edit.value!r} is planned as a layer, but nothing makes it")
    mark_as_run(node)
    return "reads int8 rows, each of its own scale, if its weight is codes; writes floats"


def _first(graph: ir.Graph, readers: Sequence[ir.Node]) -> ir.Node:
    wanted = set(readers)
    return next(node for node in graph if node in wanted)


def _replacement(graph: _Graph, edit: ReplaceConstant) -> str:
    value = graph.value(edit.value)
    new = graph.constant(f"{edit.value}.replaced", edit.array)
    if value.shape is not None and value.shape != new.shape:
        shapes = f"{shape_of(value)} -> {shape_of(new)}"
    else:
        shapes = "same shape"
    _redirect(value, new, edit.consumers)
    graph.drop(value)
    return f"constant replaced, {shapes}"


_EDITORS: dict[type[Any], Callable[[_Graph, Any], str]] = {
    QuantizeActivation: _activation,
    QuantizeAsRun: _as_run,
    QuantizeWeight: _weight,
    ReplaceConstant: _replacement,
}
