"""Attention as one operator.

Source: coremltools ``ops/defs/iOS18/transformers.py``.
"""

from __future__ import annotations

import numpy as np

from edgevit.runtimes.mil.arithmetic import contract, total
from edgevit.runtimes.mil.context import Context, Kernel
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]


def _scaled_dot_product_attention(
    ctx: Context, query: Array, key: Array, value: Array, attn_mask: Array | None = None
) -> Array:
    """``softmax(query key^T / sqrt(E) + mask) value`` over the last two axes.

    Args:
        ctx: The circumstances of the call.
        query: ``[B, ..., L, E]``.
        key: ``[B, ..., S, E]``.
        value: ``[B, ..., S, V]``.
        attn_mask: Added to the scores; of booleans: which keys take part.
    """
    if query.ndim < 3 or not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        raise ValueError(
            f"expected the same leading axes, at least one, in query {list(query.shape)}, key"
            f" {list(key.shape)} and value {list(value.shape)}"
        )
    root = query.dtype.type(np.sqrt(query.shape[-1]))
    scores = contract(query, np.swapaxes(key, -1, -2), half=ctx.half) / root
    if attn_mask is not None and ctx.dtypes["attn_mask"] == "bool":
        scores = np.where(attn_mask, scores, -np.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    power = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    weights = power / total(power, [-1], keepdims=True, half=ctx.half)
    return contract(weights, value, half=ctx.half)


OPERATORS: dict[str, Kernel] = {"scaled_dot_product_attention": _scaled_dot_product_attention}
