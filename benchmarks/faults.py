"""Twelve faults of a lowering, injected between the canonical graph and the backend.

Each is a function that edits the canonical model which a backend is about to lower; the
verifier keeps the right one. It returns the value name that the faulty node produces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.backend import Arithmetic, Backend, Lowered, LowerOptions
from edgevit.errors import Availability
from edgevit.model import constant, fresh_name, shape_of
from edgevit.target import Target

__all__ = ["FAULTS", "FaultyBackend", "scale_fault"]

Fault = Callable[[ir.Model], str]


def _nodes(model: ir.Model, op: str) -> Iterator[ir.Node]:
    return (node for node in model.graph if node.op_type == op)


def _first(model: ir.Model, op: str) -> ir.Node:
    found = next(_nodes(model, op), None)
    if found is None:
        raise LookupError(f"the mutation model has no {op}")
    return found


def _named(model: ir.Model, value: str) -> ir.Node:
    for node in model.graph:
        if any(out.name == value for out in node.outputs):
            return node
    raise LookupError(f"the canonical graph has no value {value!r}")


def _output(node: ir.Node) -> str:
    return str(node.outputs[0].name)


def _set_constant(
    model: ir.Model, node: ir.Node, index: int, array: np.ndarray[Any, Any]
) -> None:
    """Give one input of one node a new constant; other users keep theirs."""
    name = fresh_name(model.graph, f"{_output(node)}.fault")
    value = ir.val(
        name,
        ir.DataType.from_numpy(array.dtype),
        list(array.shape),
        const_value=ir.tensor(np.ascontiguousarray(array), name=name),
    )
    model.graph.register_initializer(value)
    node.replace_input_with(index, value)


def _array(node: ir.Node, index: int) -> np.ndarray[Any, Any]:
    array = constant(node.inputs[index])
    if array is None:
        raise LookupError(f"input {index} of {_output(node)!r} is not constant")
    return array


def swapped_operands(model: ir.Model) -> str:
    """Subtraction: a - b becomes b - a."""
    node = _first(model, "Sub")
    a, b = node.inputs
    node.replace_input_with(0, b)
    node.replace_input_with(1, a)
    return _output(node)


def dropped_bias(model: ir.Model) -> str:
    """A convolution loses its bias."""
    node = _first(model, "Conv")
    _set_constant(model, node, 2, np.zeros_like(_array(node, 2)))
    return _output(node)


def wrong_axis(model: ir.Model) -> str:
    """A softmax over channels runs over tokens."""
    node = _first(model, "Softmax")
    node.attributes["axis"] = ir.AttrInt64("axis", len(shape_of(node.outputs[0])) - 2)
    return _output(node)


def transposed_heads(model: ir.Model) -> str:
    """The output of attention is merged with heads and features exchanged."""
    node = next(
        use.node
        for attention in _nodes(model, "Attention")
        for use in attention.outputs[0].uses()
        if use.node.op_type == "Transpose"
    )
    node.attributes["perm"] = ir.AttrInt64s("perm", [0, 2, 3, 1])
    batch, tokens, heads, features = shape_of(node.outputs[0])
    node.outputs[0].shape = ir.Shape((batch, tokens, features, heads))
    return _output(node)


def epsilon_lost(model: ir.Model) -> str:
    """A LayerNormalization forgets its epsilon (1e-4 in the mutation model)."""
    node = _first(model, "LayerNormalization")
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-12)
    return _output(node)


def scale_fault(factor: float) -> Fault:
    """A weight is scaled by ``factor``."""

    def scaled(model: ir.Model) -> str:
        node = _named(model, "o0")
        _set_constant(model, node, 1, _array(node, 1) * np.float32(factor))
        return _output(node)

    return scaled


def tanh_gelu(model: ir.Model) -> str:
    """GELU by its tanh approximation where the source has erf."""
    node = _first(model, "Gelu")
    node.attributes["approximate"] = ir.AttrString("approximate", "tanh")
    return _output(node)


def padding_off_by_one(model: ir.Model) -> str:
    """A convolution's padding sits one pixel too far to the end."""
    node = _first(model, "Conv")
    node.attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 2, 2])
    return _output(node)


def wrong_group_count(model: ir.Model) -> str:
    """A convolution of four groups is lowered as one of two."""
    node = next(n for n in _nodes(model, "Conv") if n.attributes.get_int("group", 1) == 4)
    weight = _array(node, 1)
    _set_constant(model, node, 1, np.concatenate([weight, weight], axis=1))
    node.attributes["group"] = ir.AttrInt64("group", 2)
    return _output(node)


def reversed_concat(model: ir.Model) -> str:
    """A concatenation takes its inputs in reverse order."""
    node = _first(model, "Concat")
    for i, value in enumerate(reversed(list(node.inputs))):
        node.replace_input_with(i, value)
    return _output(node)


def wrong_broadcast(model: ir.Model) -> str:
    """A vector over features is broadcast over tokens."""
    node = _named(model, "shifted")
    row = _array(node, 1).ravel()
    tokens = shape_of(node.outputs[0])[-2]
    _set_constant(model, node, 1, np.resize(row, (1, tokens, 1)))
    return _output(node)


def stale_weight(model: ir.Model) -> str:
    """One linear layer ships the weights of an earlier checkpoint (5 % away)."""
    node = _named(model, "down")
    weight = _array(node, 1)
    drift = np.random.default_rng(1).standard_normal(weight.shape) * 0.05
    _set_constant(model, node, 1, (weight * (1 + drift)).astype(weight.dtype))
    return _output(node)


FAULTS: dict[str, Fault] = {
    "swapped operands": swapped_operands,
    "dropped bias": dropped_bias,
    "wrong axis": wrong_axis,
    "transposed heads": transposed_heads,
    "epsilon lost": epsilon_lost,
    "scale 1.01": scale_fault(1.01),
    "tanh for erf GELU": tanh_gelu,
    "padding off by one": padding_off_by_one,
    "wrong group count": wrong_group_count,
    "reversed concat": reversed_concat,
    "wrong broadcast": wrong_broadcast,
    "stale weight": stale_weight,
}


@dataclass(frozen=True)
class FaultyBackend:
    """A backend whose lowering has one fault; everything else is the real one's."""

    base: Backend
    fault: Fault

    name: ClassVar[str] = "faulty"
    precisions: ClassVar[frozenset[str]] = frozenset({"fp32", "fp16"})

    def probe(self) -> Availability:
        """As the base."""
        return self.base.probe()

    def unsupported(self, node: ir.Node, target: Target, precision: str) -> str | None:
        """As the base."""
        return self.base.unsupported(node, target, precision)

    def lower(self, model: ir.Model, target: Target, options: LowerOptions) -> Lowered:
        """Lower a copy of the model with the fault in it."""
        faulty = model.clone()
        self.fault(faulty)
        return self.base.lower(faulty, target, options)

    def arithmetic(self, precision: str) -> Arithmetic:
        """As the base."""
        return self.base.arithmetic(precision)

    def replay(self, lowered: Lowered) -> Lowered:
        """As the base."""
        return self.base.replay(lowered)

    def expose(self, lowered: Lowered) -> Lowered:
        """As the base."""
        return self.base.expose(lowered)
