"""Stored integers that are sums of signed powers of two become packed shift codes again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.edits import ShiftWeight
from edgevit.model import constant, dtype_of
from edgevit.passes.apply_shifts import LAYERS, apply_shifts
from edgevit.passes.facts import Array, given, operand
from edgevit.passes.store_shifts import matrix_of
from edgevit.pipeline import Effect, Outcome, Pass, Refusal
from edgevit.quantizers import Stored, dequantizer, stored
from edgevit.shift_codes import MOST_TERMS, encode, fewest

__all__ = ["RecoverShifts"]

# Terms of 4 bits that are no larger than a byte.
_AS_SMALL = 2


@dataclass(frozen=True)
class RecoverShifts(Pass):
    """Layers of networks that were trained to shifts, for backends with kernels of shifts.

    ``MatMul(x, DequantizeLinear(q, 2^e))``  ->  ``ShiftLinear(x, codes, 2^e)``, and ``Conv``
    ->  ``ShiftConv``: what ``unpack-shifts``, undone.

    A file's functions are inlined when it is loaded, so that every pass sees operators; their
    integers stay as they are. What they were is known by the numbers:

    1. Scales are positive powers of two, one for each output channel, and no zero points.
    2. Every integer is a sum of signed powers of two, of up to two if it is int8, of up to
       three (the wide form) if it is int32: codes are never larger than what they replace.
       Three narrow terms are int8 in 12 bits; int8 kernels multiply them to the same sums.
    3. A weight that is not zero throughout, read by this layer alone; a constant bias.

    A compile runs it by itself for backends with kernels of shifts, behind all other passes:
    quantizers of activations have been placed by then, and the kernels multiply codes.

    Attributes:
        larger: Whether three terms are taken of int8 too.
    """

    name: ClassVar[str] = "recover-shifts"
    effect: ClassVar[Effect] = Effect.EXACT

    larger: bool = False

    def call(self, model: ir.Model) -> Outcome:
        """Recover every layer whose integers say that it is one."""
        edits: list[ShiftWeight] = []
        refusals: list[Refusal] = []
        for node in model.graph:
            weight = given(node, 1)
            if node.domain or node.op_type not in LAYERS or weight is None:
                continue
            edit = _edit(node, stored(weight), self.larger)
            reason = None if edit is None else _reason(node)
            if reason is not None:
                refusals.append(Refusal(self.name, str(node.outputs[0].name), reason))
            elif edit is not None:
                edits.append(edit)
        if not edits:
            return Outcome(model, False, (), tuple(refusals))
        made = apply_shifts(model, edits, self.name)
        return Outcome(model, True, made.changes, tuple(refusals), made.notes)


def _edit(node: ir.Node, weight: Stored | None, larger: bool) -> ShiftWeight | None:
    conv = node.op_type == "Conv"
    if weight is None or weight.codes.ndim != (4 if conv else 2):
        return None
    kept, q = weight.quantizer, matrix_of(weight.codes, conv)
    wide = kept.dtype is ir.DataType.INT32
    fits = wide or kept.dtype is ir.DataType.INT8
    channels = kept.axis == (0 if conv else 1) or (kept.axis is None and not kept.block)
    if not (fits and channels and kept.symmetric and not kept.block and q.any()):
        return None
    scale = np.broadcast_to(kept.scale, q.shape[1:]).astype(np.float32)
    powers = np.isfinite(scale) & (scale > 0) & (np.frexp(scale)[0] == 0.5)
    most = MOST_TERMS if wide or larger else _AS_SMALL
    terms = fewest(q, most, wide) if powers.all() else None  # cases 1 and 2
    if terms is None:
        return None
    packed = encode(np.ascontiguousarray(q), terms, wide)
    detail = _detail(node, scale, f"{terms} term{'s' * (terms > 1)}, {packed.bits} bits")
    key = str(node.outputs[0].name)
    return ShiftWeight(key, packed.codes, packed.signs, scale, packed.inputs, detail)


def _reason(node: ir.Node) -> str | None:
    """Case 3: why a layer of such integers is left as it is."""
    if len(operand(node, 1).uses()) > 1:
        return "its weight is shared with another layer"
    bias = given(node, 2)
    if bias is not None and constant(bias) is None:
        return "its bias is not a constant"
    kind = dtype_of(operand(node, 0)).name
    return None if kind == "float32" else f"its data are {kind}, expected float32"


def _detail(node: ir.Node, scale: Array, form: str) -> str:
    exponents = np.log2(scale.astype(np.float64))
    data = "codes" if dequantizer(node.inputs[0]) is not None else "floats: float32 products"
    return (
        f"{form} a weight, exactly what is stored, 2^e with e {exponents.min():.4g} to "
        f"{exponents.max():.4g}; its data are {data}"
    )
