"""Matrix products.

Source: coremltools ``ops/defs/iOS15/linear.py`` and ``iOS17/linear.py``.
"""

from __future__ import annotations

import numpy as np

from edgevit.runtimes.mil.arithmetic import add, contract
from edgevit.runtimes.mil.context import Context, Kernel, Tensors
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]


def _linear(ctx: Context, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """``x @ weight.T + bias``; ``x [..., in]``, ``weight [out, in]``, ``bias [out]``."""
    rows = x.reshape(-1, x.shape[-1])  # one product, whatever the rank
    result = contract(rows, weight.T, half=ctx.half)
    if bias is not None:
        result = add(result, bias, half=ctx.half)
    return result.reshape(*x.shape[:-1], weight.shape[0])


def _matmul(
    ctx: Context,
    x: Array,
    y: Array,
    transpose_x: Array | None = None,
    transpose_y: Array | None = None,
) -> Array:
    """``x @ y`` as numpy's matmul, either operand's last two axes swapped before.

    A vector is taken as a row (``x``) or a column (``y``), and the axis removed again.
    """
    a, b = np.atleast_2d(x), (y[:, None] if y.ndim == 1 else y)
    if transpose_x is not None and bool(transpose_x) and x.ndim > 1:
        a = np.swapaxes(a, -1, -2)
    if transpose_y is not None and bool(transpose_y) and y.ndim > 1:
        b = np.swapaxes(b, -1, -2)
    result = contract(a, b, half=ctx.half)
    if y.ndim == 1:
        result = result[..., 0]
    return result[..., 0, :] if x.ndim == 1 and y.ndim > 1 else result


def _einsum(ctx: Context, values: Tensors, equation: str) -> Array:
    """``[B,C,H,W] x [B,W,H,U] -> [B,C,H,U]`` or the same without B; 1 broadcasts in B, H."""
    left, right, result = _letters(equation)
    same_batch = left[:-3] == right[:-3] == result[:-3]
    contracted = left[-1] == right[-3] and left[-2] == right[-2] == result[-2]
    if not (same_batch and contracted and result[-3] == left[-3] and result[-1] == right[-1]):
        raise ValueError(f"expected 'nchw,nwhu->nchu' or 'chw,whr->chr', found {equation!r}")
    x, y = values
    if not x.ndim == y.ndim == len(left):
        raise ValueError(f"expected operands of rank {len(left)} for {equation!r}")
    return np.swapaxes(
        contract(np.swapaxes(x, -2, -3), np.swapaxes(y, -2, -3), half=ctx.half), -2, -3
    )


def _letters(equation: str) -> tuple[str, str, str]:
    operands, arrow, result = equation.replace(" ", "").partition("->")
    left, comma, right = operands.partition(",")
    if not arrow or not comma or not len(left) == len(right) == len(result) in (3, 4):
        raise ValueError(f"expected two operands and a result of rank 3 or 4: {equation!r}")
    return left, right, result


OPERATORS: dict[str, Kernel] = {"einsum": _einsum, "linear": _linear, "matmul": _matmul}
