"""Remove what no output needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgevit.pipeline import Change, Effect, Outcome, Pass

__all__ = ["RemoveDead"]

# Operators whose trailing outputs may be dropped when nothing reads them.
_OPTIONAL = frozenset(
    {"LayerNormalization", "BatchNormalization", "MaxPool", "Dropout", "Attention", "Unique"}
)


@dataclass(frozen=True)
class RemoveDead(Pass):
    """Remove nodes, optional outputs, initializers and functions that nothing uses.

    ``(y, mean) = LayerNormalization(x)``, only ``y`` read  ->  ``y = LayerNormalization(x)``

    1. A node goes if none of its outputs is read or is a graph output.
    2. Trailing optional outputs of an operator go if nothing reads them; also the empty
       inputs at the end of a node.
    3. Initializers and functions go if nothing reads or calls them. Graph inputs stay.
    """

    name: ClassVar[str] = "remove-dead"
    effect: ClassVar[Effect] = Effect.EXACT

    def call(self, model: ir.Model) -> Outcome:
        """Sweep once, from the outputs up."""
        graph = model.graph
        changes = []
        for node in reversed(list(graph)):
            if not any(_read(o) for o in node.outputs):
                changes.append(Change(self.name, node.outputs[0].name or "", node.op_type))
                graph.remove(node, safe=True)
            elif _trim(node):
                changes.append(Change(self.name, node.outputs[0].name or "", "outputs"))
        for name, value in list(graph.initializers.items()):
            if not _read(value) and not value.is_graph_input():
                del graph.initializers[name]
                changes.append(Change(self.name, name, "initializer"))
        changes += [Change(self.name, "::".join(k[:2]), "function") for k in _uncalled(model)]
        for key in _uncalled(model):
            del model.functions[key]
        return Outcome(model, bool(changes), tuple(changes))


def _read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _trim(node: ir.Node) -> bool:
    outputs, inputs = len(node.outputs), len(node.inputs)
    while node.op_type in _OPTIONAL and outputs > 1 and not _read(node.outputs[outputs - 1]):
        outputs -= 1
    while inputs and node.inputs[inputs - 1] is None:
        inputs -= 1
    changed = outputs < len(node.outputs) or inputs < len(node.inputs)
    if changed:
        node.resize_outputs(outputs)
        node.resize_inputs(inputs)
    return changed


def _uncalled(model: ir.Model) -> list[ir.OperatorIdentifier]:
    called: set[ir.OperatorIdentifier] = set()
    queue = [n.op_identifier() for n in model.graph.all_nodes()]
    while queue:
        key = queue.pop()
        if key in called or key not in model.functions:
            continue
        called.add(key)
        queue += [n.op_identifier() for n in model.functions[key]]
    return [k for k in model.functions if k not in called]
