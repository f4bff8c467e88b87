"""Tolerances of layers whose weights are packed sums of signed powers of two.

As ``edgevit.tolerance`` has them for the products that the functions' bodies are: the codes
are exact, sums of K terms are off by ``SAFETY sqrt(K) u`` of their magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.roundoff import SAFETY, Operand, Roundoff
from edgevit.shift_codes import FUNCTIONS, Packed, decode

__all__ = ["SHIFT_RULES"]

Array = np.ndarray[Any, Any]


def _shifted(node: ir.Node, ops: Sequence[Operand], out: Array, unit: Roundoff) -> float:
    wide, conv = node.op_type.startswith("Wide"), node.op_type.endswith("Conv")
    depth = node.attributes["inputs"].as_int()
    signs = ops[2].array if wide else None
    numbers = decode(Packed(ops[1].array, signs, depth)).astype(np.float64)
    weight = np.abs(numbers * ops[2 + wide].array)
    sums, norms = weight.sum(0).max(), math.sqrt(np.square(weight).sum(0).max())
    x, root = ops[0], math.sqrt(depth)
    rows = np.where(np.isfinite(x.array), x.array, 0).astype(np.float64)
    data = root * x.peak if conv else float(np.linalg.norm(rows, axis=-1).max(initial=0))
    own = SAFETY * root * unit.compute * min(sums * x.peak, norms * data)
    carried = min(x.error * sums, x.norm(depth) * norms)
    bias = ops[3 + wide] if conv else None
    added = 0.0 if bias is None else bias.error + SAFETY * unit.compute * bias.peak
    return float(own + carried + added)


SHIFT_RULES: dict[str, Callable[..., float]] = dict.fromkeys(FUNCTIONS, _shifted)
