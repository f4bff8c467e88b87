"""Compute and store equal things once."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.nodewise import substitute
from edgevit.pipeline import Change, Effect, Outcome, Pass

__all__ = ["MergeDuplicates"]

_SAMPLE = 64
_RANDOM = ("Random", "Multinomial", "Bernoulli", "Dropout")


@dataclass(frozen=True)
class MergeDuplicates(Pass):
    """Keep the first of equal initializers and of equal nodes.

    ``a = f(x), b = f(x)``  ->  ``a = f(x)``, readers of ``b`` read ``a``

    1. Initializers are equal in dtype, shape and bytes.
    2. Nodes are equal in operator, inputs and attributes; random operators never are.
    3. Two graph outputs are not merged: each keeps its own name and node.
    """

    name: ClassVar[str] = "merge-duplicates"
    effect: ClassVar[Effect] = Effect.EXACT

    def call(self, model: ir.Model) -> Outcome:
        """Merge initializers first, so that nodes reading equal ones become equal."""
        changes = [Change(self.name, n, "initializer") for n in _initializers(model.graph)]
        seen: dict[Hashable, ir.Node] = {}
        for node in list(model.graph):
            key = _key(node)
            first = None if key is None else seen.setdefault(key, node)
            if first is None or first is node or _clash(first, node):
                continue
            changes.append(Change(self.name, node.outputs[0].name or "", node.op_type))
            substitute(model.graph, node, first.outputs, ())
        return Outcome(model, bool(changes), tuple(changes))


def _initializers(graph: ir.Graph) -> list[str]:
    """Merge equal initializers; returns the names that went."""
    groups: dict[Hashable, list[ir.Value]] = {}
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or value.is_graph_output():
            continue
        # A few elements tell most weights of one shape apart without reading them whole.
        sample = np.asarray(tensor.numpy()).reshape(-1)[:_SAMPLE].tobytes()
        groups.setdefault((tensor.dtype, tuple(tensor.shape), sample), []).append(value)
    merged: list[str] = []
    for group in groups.values():
        merged += _merge_group(graph, group) if len(group) > 1 else []
    return merged


def _merge_group(graph: ir.Graph, group: list[ir.Value]) -> list[str]:
    merged = []
    first: dict[bytes, ir.Value] = {}
    for value in group:
        if value.const_value is None:
            continue
        kept = first.setdefault(hashlib.sha256(value.const_value.tobytes()).digest(), value)
        if kept is value:
            continue
        name = value.name or ""
        value.replace_all_uses_with(kept)
        del graph.initializers[name]
        merged.append(name)
    return merged


def _key(node: ir.Node) -> Hashable | None:
    if node.op_type.startswith(_RANDOM):
        return None
    attributes = []
    for name, a in sorted(node.attributes.items()):
        if a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) or a.is_ref():
            return None
        value = a.value
        if isinstance(value, ir.TensorProtocol):
            value = (value.dtype, tuple(value.shape), np.asarray(value.numpy()).tobytes())
        attributes.append((name, a.type, tuple(value) if isinstance(value, list) else value))
    inputs = tuple(None if v is None else id(v) for v in node.inputs)
    return (node.op_identifier(), inputs, tuple(attributes), len(node.outputs))


def _clash(first: ir.Node, second: ir.Node) -> bool:
    """Case 3."""
    return any(
        a.is_graph_output() and b.is_graph_output()
        for a, b in zip(first.outputs, second.outputs, strict=True)
    )
