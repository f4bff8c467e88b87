"""Pattern rewriting: rules written as the expression they match.

The only file that imports ``onnxscript.rewriter``. Rules are stateless: ``check`` returns
either facts (the only channel to ``rewrite``) or a ``Refused`` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern as _pattern

from edgevit.model import Names, constant
from edgevit.pipeline import Change, Outcome, Pass, Refusal

__all__ = ["RULE_KEY", "Builder", "Match", "OrValue", "Refused", "RewritePass", "Rule"]

RULE_KEY = "edgevit.rule"
OrValue = _pattern.OrValue


@dataclass(frozen=True)
class Refused:
    """A match that must not be rewritten, and why."""

    reason: str


@dataclass(frozen=True)
class Match:
    """A matched pattern: its root node, the values bound to names, and all nodes."""

    root: ir.Node
    bound: Mapping[str, Any]
    nodes: tuple[ir.Node, ...]
    outputs: tuple[ir.Value, ...]

    def value(self, name: str) -> ir.Value:
        """The value bound to a pattern variable."""
        bound = self.bound[name]
        if not isinstance(bound, ir.Value):
            raise TypeError(f"pattern variable {name!r} is bound to {type(bound).__name__}")
        return bound

    def array(self, name: str) -> np.ndarray[Any, Any] | None:
        """The constant bound to a pattern variable; ``None`` if it is not constant."""
        return constant(self.value(name))


class Builder:
    """Collects the replacement's nodes; each is tagged with the rule that made it."""

    def __init__(
        self, rule: str, graph: ir.Graph, base: str, names: Names | None = None
    ) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self._rule, self._graph, self._base = rule, graph, base
        self._names = names or Names(graph)

    def _name(self, suffix: str = "") -> str:
        return self._names.fresh(f"{self._base}.{self._rule}{suffix}")

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        shape: ir.Shape | Sequence[int] | None = None,
        dtype: ir.DataType | None = None,
    ) -> ir.Value:
        """Append a node with one output of the given shape and dtype; returns the output."""
        return self.op_n(op_type, inputs, (shape,), attributes, domain=domain, dtype=dtype)[0]

    def op_n(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shapes: Sequence[ir.Shape | Sequence[int] | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        dtype: ir.DataType | None = None,
    ) -> tuple[ir.Value, ...]:
        """Append a node with one output per shape, all of one dtype; returns the outputs."""
        attrs = ir.convenience.convert_attributes(dict(attributes or {}))
        node = ir.Node(domain, op_type, inputs, attrs, num_outputs=len(shapes))
        node.metadata_props[RULE_KEY] = self._rule
        for out, shape in zip(node.outputs, shapes, strict=True):
            out.name = self._name()
            if shape is not None:
                out.shape = shape if isinstance(shape, ir.Shape) else ir.Shape(tuple(shape))
            if dtype is not None:
                out.type = ir.TensorType(dtype)
        self.nodes.append(node)
        return tuple(node.outputs)

    def constant(self, array: np.ndarray[Any, Any]) -> ir.Value:
        """Register a constant as an initializer of the graph."""
        name = self._name(".const")
        value = ir.val(
            name,
            ir.DataType.from_numpy(array.dtype),
            list(array.shape),
            const_value=ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name),
        )
        self._graph.register_initializer(value)
        self.initializers.append(value)
        return value


class Rule:
    """One rewrite: a pattern, a check, a replacement. Subclass; keep no state.

    ``pattern(op, ...)`` is written in onnxscript's pattern language; its parameter names
    are the variables that ``Match`` binds. Returns the matched value. A rule whose operands
    may come in any order or nesting overrides ``find`` instead.

    Attributes:
        name: Rule name, kept on every node that the rule makes.
        root_ops: Operator types at which the rule is tried; empty means all.
    """

    name: ClassVar[str]
    root_ops: ClassVar[frozenset[str]] = frozenset()

    def patterns(self) -> Sequence[Callable[..., Any]]:
        """The alternatives, most specific first. Default: the one ``pattern``."""
        return (self.pattern,)

    def pattern(self, op: Any, *args: Any) -> Any:
        """The expression to match."""
        raise NotImplementedError(f"rule {type(self).__name__} has no pattern")

    def find(self, model: ir.Model, node: ir.Node) -> Match | Refused | None:
        """The match at ``node``; ``Refused`` if it nearly is one. Default: the patterns.

        A match's ``root`` is the node after which the replacement is inserted, so it
        produces the matched output.
        """
        return _match(self, model, node)

    def check(self, m: Match) -> Any:
        """Facts for ``rewrite``, or ``Refused(reason)``."""
        raise NotImplementedError(f"rule {type(self).__name__} has no check")

    def rewrite(self, op: Builder, m: Match, facts: Any) -> ir.Value:
        """Build the replacement; returns the value that takes the matched output's place."""
        raise NotImplementedError(f"rule {type(self).__name__} has no rewrite")


@cache
def _compiled(rule: Rule) -> tuple[_pattern.Pattern, ...]:
    return tuple(_pattern.Pattern(p, name=rule.name) for p in rule.patterns())


def _match(rule: Rule, model: ir.Model, node: ir.Node) -> Match | None:
    for compiled in _compiled(rule):
        found = compiled.match(model, model.graph, node)
        if found:
            return Match(node, found.bindings, tuple(found.nodes), tuple(found.outputs))
    return None


@dataclass(frozen=True)
class RewritePass(Pass):
    """A pass made of rules, applied to each node in reverse topological order."""

    def rules(self) -> Sequence[Rule]:
        """The rules, tried in order at each node."""
        raise NotImplementedError(f"{type(self).__name__} has no rules")

    def call(self, model: ir.Model) -> Outcome:
        """Apply all rules once over the graph."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        for node in _snapshot(model.graph):
            if node.graph is not model.graph:
                continue  # removed by an earlier rewrite
            for rule in self.rules():
                if rule.root_ops and node.op_type not in rule.root_ops:
                    continue
                if self._apply(rule, model, node, changes, refusals):
                    break
        return Outcome(model, bool(changes), tuple(changes), tuple(refusals))

    def _apply(
        self,
        rule: Rule,
        model: ir.Model,
        node: ir.Node,
        changes: list[Change],
        refusals: list[Refusal],
    ) -> bool:
        m = rule.find(model, node)
        if isinstance(m, Refused):
            refusals.append(Refusal(rule.name, node.outputs[0].name or "", m.reason))
        if not isinstance(m, Match):
            return False
        site = m.outputs[0].name or ""
        facts = rule.check(m)
        if isinstance(facts, Refused):
            refusals.append(Refusal(rule.name, site, facts.reason))
            return False
        _replace(rule, model, m, facts)
        changes.append(Change(rule.name, site))
        return True


def _snapshot(graph: ir.Graph) -> Iterator[ir.Node]:
    yield from reversed(list(graph))


def _replace(rule: Rule, model: ir.Model, m: Match, facts: Any) -> None:
    old = m.outputs[0]
    builder = Builder(rule.name, model.graph, old.name or rule.name)
    new = rule.rewrite(builder, m, facts)
    if new.shape is None:
        new.shape = old.shape
    if new.type is None:
        new.type = old.type
    ir.convenience.replace_nodes_and_values(
        model.graph, m.root, m.nodes, builder.nodes, [old], [new]
    )
