"""Logarithmic codes for attention weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.attention import take_apart
from edgevit.edits import Edit, QuantizeLog
from edgevit.errors import InternalError, UsageError
from edgevit.model import Names, shape_of
from edgevit.passes.facts import Array, attr, operand
from edgevit.passes.functions import DOMAIN, ensure_function
from edgevit.passes.log_codes import RATES, best_rate, factor, table
from edgevit.pipeline import CalibratedPass, Change, Context, Outcome
from edgevit.rewrite import Builder
from edgevit.statistics import stream

__all__ = ["LogQuantize"]

_RATES = {"log2": 1.0, "log-sqrt2": 0.5}


@dataclass(frozen=True)
class LogQuantize(CalibratedPass):
    """Attention weights take few values, spaced evenly in the logarithm.

    ``Softmax(S)``  ->  ``LogQuantize(Softmax(S)) = table[round(-log2(.) / rate)]``

    Softmax gives many tiny numbers and few large ones: even steps at 4 bits lose most of them.
    ``log2`` as in FQ-ViT (arXiv 2111.13824), ``log-sqrt2`` as in RepQ-ViT (arXiv 2212.08254),
    ``adalog`` with a base for every attention, searched for the least error of what the
    attention gives (arXiv 2407.12951).

    1. An ``Attention`` is taken apart into its two products; a ``Softmax`` over the last axis
       that only products read is taken as it is.
    2. The result is a float function (a table lookup): no engine here has integer kernels for
       it, and nothing gets faster. It stands for hardware with shifts.

    Attributes:
        kind: ``log2``, ``log-sqrt2`` or ``adalog``.
        bits: Width of the codes; one code means zero.
        samples: Calibration samples that ``adalog`` looks at.
    """

    name: ClassVar[str] = "log-quantize"

    kind: str = "adalog"
    bits: int = 4
    samples: int = 4

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """A rate for every attention."""
        if self.kind not in (*_RATES, "adalog") or not 2 <= self.bits <= 8:
            raise UsageError(
                f"pass {self.name!r}: no codes of kind {self.kind!r} with {self.bits} bits",
                hint="kind can be: log2, log-sqrt2, adalog; bits 2 to 8",
            )
        sites = [node.outputs[0] for node in model.graph if _is_site(node)]
        if self.kind in _RATES or not sites:
            rate = _RATES.get(self.kind, 1.0)
            return tuple(QuantizeLog(str(v.name), self.bits, rate) for v in sites)
        return tuple(self._searched(model, sites, context))

    def _searched(
        self, model: ir.Model, sites: Sequence[ir.Value], context: Context
    ) -> list[Edit]:
        apart = model.clone()
        weights = {}
        values = {str(o.name): o for node in apart.graph for o in node.outputs}
        for site in sites:
            made = _apart(apart.graph, values[str(site.name)], self.name)
            weights[str(site.name)] = (str(made[0].name), str(made[1].name))
        wanted = [name for pair in weights.values() for name in pair]
        source = stream(apart, samples=context.data(str(self)), values=wanted)
        found = list(islice(source, self.samples))
        edits: list[Edit] = []
        for name, (p, v) in weights.items():
            rates = [best_rate(sample[p], sample[v], self.bits) for sample in found]
            middle = float(np.median(rates))
            nearest = min(RATES, key=lambda rate: abs(rate - middle))
            edits.append(QuantizeLog(name, self.bits, nearest))
        return edits

    def perform(self, model: ir.Model, edits: Sequence[Edit]) -> Outcome:
        """Take attentions apart and put the codes in.

        Raises:
            InternalError: The plan was made for another model.
        """
        values = {str(o.name): o for node in model.graph for o in node.outputs}
        changes = []
        for edit in edits:
            if not isinstance(edit, QuantizeLog) or edit.value not in values:
                raise InternalError(f"{self.name}: the plan names {edit!r}, not in the model")
            weights, _ = _apart(model.graph, values[edit.value], self.name)
            _insert(model.graph, weights, edit, self.name)
            detail = f"{2**edit.bits} values, {1 / edit.rate:.3g} an octave; computed in float"
            changes.append(Change(self.name, edit.value, detail))
        if changes:
            ensure_function(model, "LogQuantize")
        return Outcome(model, bool(changes), tuple(changes))


def _is_site(node: ir.Node) -> bool:
    if node.domain:
        return False
    if node.op_type == "Attention":
        return True
    out = node.outputs[0]
    last = node.op_type == "Softmax" and attr(node, "axis") == len(shape_of(out)) - 1
    users = list(out.uses())
    mixes = all(u.node.op_type == "MatMul" and u.idx == 0 for u in users)
    return bool(last and users and mixes and not out.is_graph_output())


def _apart(graph: ir.Graph, value: ir.Value, rule: str) -> tuple[ir.Value, ir.Value]:
    """Weights and values of an attention, in pieces from now on."""
    node = value.producer()
    if node is None:
        raise InternalError(f"{value.name!r} is no attention")
    if node.op_type == "Softmax":
        user = next(iter(value.uses())).node
        return value, operand(user, 1)
    values = operand(node, 2)
    weights = take_apart(graph, node, Builder(rule, graph, str(value.name)))
    return weights, values


def _insert(graph: ir.Graph, weights: ir.Value, edit: QuantizeLog, rule: str) -> None:
    users = list(weights.uses())
    op = Builder(rule, graph, str(weights.name), Names(graph))
    numbers: list[Array] = [
        np.asarray(factor(edit.rate), np.float32),
        np.asarray(2**edit.bits - 1, np.float32),
        table(edit.bits, edit.rate),
    ]
    inputs = [weights, *(op.constant(a) for a in numbers)]
    y = op.op("LogQuantize", inputs, domain=DOMAIN, shape=weights.shape, dtype=weights.dtype)
    producer = weights.producer()
    if producer is None:
        raise InternalError(f"{weights.name!r} has no producer")
    graph.insert_after(producer, op.nodes)
    for use in users:
        use.node.replace_input_with(use.idx, y)
