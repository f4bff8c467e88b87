"""Attention whose queries and keys are 0/1 codes, kept as a function of our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.edits import Edit, FreezeThresholds, KeepFloat
from edgevit.errors import InternalError
from edgevit.passes.binary_sites import BinarySite, binary_site, code_products
from edgevit.passes.facts import attr, scalar, static
from edgevit.passes.functions import DOMAIN, ensure_function
from edgevit.passes.nodewise import substitute
from edgevit.passes.remove_dead import RemoveDead
from edgevit.pipeline import CalibratedPass, Change, Context, Effect, Outcome, Refusal
from edgevit.rewrite import Builder, Refused
from edgevit.statistics import stream

__all__ = ["BinaryAttention"]

_TRAINING = (
    "only training makes queries and keys 0/1 codes: train the network with binary linear "
    "attention (examples/shiftadd_training), or leave this pass out"
)


@dataclass(frozen=True)
class BinaryAttention(CalibratedPass):
    """Linear attention that was trained with 0/1 codes, kept as ``BinaryLinearAttention``.

    ``v / 2 + 1[q / |q| > mean] (1[k / |k| > mean]^T v) / pi``, normalized, ``+ DWConv(v)``
    ->  ``ai.edgevit.BinaryLinearAttention(q, k, v, tq, tk, w)``

    As in ShiftAddViT (arXiv 2306.06446). Its code compares with the mean over the whole
    batch, so that an answer depends on what else is in the batch; here the threshold is the
    mean of those means over calibration samples, a constant of the compiled model.

    1. The structure of ``binary_sites.binary_site``. One that nearly has it is refused with
       what differs.
    2. Thresholds that are constant already stay, and then no calibration data is needed.
    3. Attention by softmax is refused: what would be computed is another function.
    """

    name: ClassVar[str] = "binary-attention"
    effect: ClassVar[Effect] = Effect.TRAINED
    needs_samples: ClassVar[bool] = False

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """A pair of thresholds for every attention; reasons for those that are none."""
        edits: list[Edit] = [
            KeepFloat(str(n.outputs[0].name), f"softmax attention: {_TRAINING}")
            for n in model.graph
            if _by_softmax(n)
        ]
        found = [(node, binary_site(node)) for node in code_products(model.graph)]
        edits += [
            KeepFloat(str(node.outputs[0].name), site.reason)
            for node, site in found
            if isinstance(site, Refused)
        ]
        sites = [site for _, site in found if isinstance(site, BinarySite)]
        return (*edits, *self._frozen(model, sites, context))

    def _frozen(
        self, model: ir.Model, sites: Sequence[BinarySite], context: Context
    ) -> list[Edit]:
        means = [t for site in sites for t in site.thresholds if scalar(t) is None]
        seen: dict[str, list[float]] = {str(t.name): [] for t in means}
        if means:
            for sample in stream(model, context.data(str(self)), list(seen)):
                for name, values in seen.items():
                    values.append(float(sample[name].reshape(-1)[0]))

        def frozen(threshold: ir.Value) -> float:
            number = scalar(threshold)
            return float(np.mean(seen[str(threshold.name)])) if number is None else number

        return [
            FreezeThresholds(
                str(site.root.outputs[0].name), *(frozen(t) for t in site.thresholds)
            )
            for site in sites
        ]

    def perform(self, model: ir.Model, edits: Sequence[Edit]) -> Outcome:
        """Put the functions in.

        Raises:
            InternalError: The plan was made for another model.
        """
        found = (binary_site(node) for node in code_products(model.graph))
        sites = {str(s.root.outputs[0].name): s for s in found if isinstance(s, BinarySite)}
        changes: list[Change] = []
        refusals: list[Refusal] = []
        for edit in edits:
            if isinstance(edit, KeepFloat):
                refusals.append(Refusal(self.name, edit.node, edit.reason))
            elif isinstance(edit, FreezeThresholds) and edit.value in sites:
                _put(model.graph, sites[edit.value], edit, self.name)
                detail = f"queries above {edit.query:.4f}, keys above {edit.key:.4f}"
                changes.append(Change(self.name, edit.value, detail))
            else:
                raise InternalError(f"{self.name}: the plan names {edit!r}, not in the model")
        if changes:
            ensure_function(model, "BinaryLinearAttention")
            RemoveDead().call(model)
        return Outcome(model, bool(changes), tuple(changes), tuple(refusals))


def _by_softmax(node: ir.Node) -> bool:
    """Whether a node mixes positions by softmax: two rows at least."""
    if node.domain:
        return False
    if node.op_type == "Attention":
        return True
    shape = static(node.outputs[0])
    return (
        node.op_type == "Softmax"
        and shape is not None
        and attr(node, "axis", -1) % len(shape) == len(shape) - 1
        and any(u.node.op_type == "MatMul" and u.idx == 0 for u in node.outputs[0].uses())
    )


def _put(graph: ir.Graph, site: BinarySite, edit: FreezeThresholds, rule: str) -> None:
    out = site.root.outputs[0]
    op = Builder(rule, graph, str(out.name))
    numbers = [op.constant(np.asarray(t, np.float32)) for t in (edit.query, edit.key)]
    heads = static(site.v)
    y = op.op(
        "BinaryLinearAttention",
        [site.q, site.k, site.v, *numbers, site.taps],
        {"group": 1 if heads is None else heads[1], "pads": site.pads},
        domain=DOMAIN,
        shape=out.shape,
        dtype=out.dtype,
    )
    substitute(graph, site.root, (y,), op.nodes)
