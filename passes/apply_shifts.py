"""Put planned shift weights into a graph. The only code that does; it decides nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgevit.edits import Edit, ShiftWeight
from edgevit.energy import sites, text_of_accounts
from edgevit.errors import InternalError
from edgevit.model import Names, constant, shape_of
from edgevit.passes.apply_quantizers import apply
from edgevit.passes.facts import attr, given, operand
from edgevit.passes.functions import DOMAIN, ensure_function
from edgevit.passes.nodewise import substitute
from edgevit.passes.quantizable import drop_unread, stored
from edgevit.passes.shift_functions import CONV_KEYS
from edgevit.pipeline import Change, Note, Outcome
from edgevit.rewrite import Builder
from edgevit.shift_codes import Packed, decode

__all__ = ["LAYERS", "apply_shifts"]

# Operators that have a form of shifts.
LAYERS = ("Conv", "MatMul")


def apply_shifts(model: ir.Model, edits: Sequence[Edit], rule: str) -> Outcome:
    """Apply edits in place: other weights and biases first, then the shift functions.

    Args:
        model: Canonical model that the edits were planned on.
        edits: Shift weights, and what ``apply_quantizers`` takes.
        rule: Name of the pass; nodes it makes carry it.

    Raises:
        InternalError: An edit names a layer that the model does not have.
        InputError: Codes that mean no weights of the layer.
    """
    shifts = [e for e in edits if isinstance(e, ShiftWeight)]
    rest = apply(model, [e for e in edits if not isinstance(e, ShiftWeight)], rule)
    layers = {str(n.outputs[0].name): n for n in model.graph if n.outputs}
    changes, sizes, names = list(rest.changes), [], Names(model.graph)
    for edit in shifts:
        node = layers.get(edit.value)
        weight = None if node is None or len(node.inputs) < 2 else node.inputs[1]
        known = weight is not None and (constant(weight) is not None or stored(weight))
        if node is None or weight is None or not known or node.op_type not in LAYERS:
            raise InternalError(
                f"{rule}: the plan names layer {edit.value!r}, not in the model"
            )
        packed = Packed(edit.codes, edit.signs, edit.inputs)
        shape = shape_of(weight)
        sizes.append((math.prod(shape), packed))
        _replace(model, node, edit, packed, shape, rule, names)
        changes.append(Change(rule, edit.value, edit.detail))
    each = (Note(e.value, e.detail) for e in shifts if e.detail)
    notes = (_summary(sizes), *_energy(model), *each, *rest.notes) if sizes else rest.notes
    return Outcome(model, bool(changes), tuple(changes), rest.refusals, notes)


def _summary(sizes: Sequence[tuple[int, Packed]]) -> Note:
    count = sum(size for size, _ in sizes)
    terms = sum(size * packed.terms for size, packed in sizes) / count
    stored = sum(packed.nbytes for _, packed in sizes)
    text = (
        f"{len(sizes)} layers of shifts, {terms:.2f} terms a weight: {_size(4 * count)} "
        f"of float32 weights, {_size(stored)} as packed codes"
    )
    return Note("", text)


def _size(count: int) -> str:
    return f"{count / 1e6:.3f} MB" if count >= 1e5 else f"{count:,} bytes"


def _energy(model: ir.Model) -> list[Note]:
    """What the shift layers would cost, next to other ways: modelled, not measured."""
    shifted = [site for site in sites(model) if site.terms]
    return [Note("", line) for line in text_of_accounts(shifted)]


def _replace(
    model: ir.Model,
    node: ir.Node,
    edit: ShiftWeight,
    packed: Packed,
    shape: tuple[int, ...],
    rule: str,
    names: Names,
) -> None:
    graph, out, conv = model.graph, node.outputs[0], node.op_type == "Conv"
    outputs = shape[0] if conv else shape[1]
    size = int(np.prod(shape, dtype=np.int64))
    if decode(packed).shape != (size // outputs, outputs) or edit.scale.shape != (outputs,):
        raise InternalError(f"{rule}: codes of layer {edit.value!r} are not of its shape")
    op = Builder(rule, graph, str(out.name), names)
    arrays = [edit.codes, *([edit.signs] if edit.signs is not None else [])]
    inputs = [operand(node, 0), *(op.constant(a) for a in (*arrays, edit.scale))]
    attributes: dict[str, object] = {"inputs": edit.inputs}
    kind = "Shift" + ("Conv" if conv else "Linear")
    if conv:
        attributes |= {"weight_shape": list(shape)} | {k: attr(node, k) for k in CONV_KEYS}
        bias = given(node, 2)
        inputs.append(op.constant(np.zeros(outputs, np.float32)) if bias is None else bias)
    name = kind if edit.signs is None else f"Wide{kind}"
    y = op.op(name, inputs, attributes, domain=DOMAIN, shape=out.shape, dtype=out.dtype)
    ensure_function(model, name)
    old = [v for v in node.inputs[1:] if v is not None]
    substitute(graph, node, (y,), op.nodes)
    for value in old:
        drop_unread(graph, value)
