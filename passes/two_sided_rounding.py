"""Rounding in which output channels make good for each other's errors too.

An error ``dW`` of a linear layer's weights changes the network's answers by about
``tr(G dW H dW^T)``: ``H = E[x x^T]`` of its inputs, ``G = E[g g^T]`` of the gradients at its
outputs (Martens and Grosse, "K-FAC", arXiv 1503.05671, section 3). Rounding with H alone
(``compensated_rounding``) takes every output for itself. Often a few directions of the outputs
decide what the network answers: errors of one channel are then made good for by others, as
Tseng, Sun, Hou and De Sa do for adaptive rounding with such a pair ("Model-preserving adaptive
rounding", arXiv 2505.22988).

Rows are rounded a few at a time, each block with the method for columns; the best change of
those that are not rounded yet follows from the inverse of G as that of columns does from H's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgevit.passes.compensated_rounding import Grid, Order, compensated
from edgevit.passes.coordinate_descent import descend
from edgevit.passes.facts import Array

__all__ = ["joint_error", "rounded_together"]

# Rows that are rounded at a time, at most; the fewest blocks. Rows of one block do not answer
# each other: with 32 in the place of 8 layers of the ViT-S lose .1 to .2 of 2 to 6 dB, in half
# the time. What G lacks of being positive is roundoff of float32; retries take it up.
_ROWS, _BLOCKS, _RIDGE = 16, 24, 1e-10


def joint_error(off: Array, inputs: Array, outputs: Array) -> float:
    """``tr(G dW H dW^T)``.

    Args:
        off: Errors of weights, ``[o, i]``.
        inputs: H, ``[i, i]``.
        outputs: G, ``[o, o]``.
    """
    return float(((outputs @ off) * (off @ inputs)).sum())


def rounded_together(
    weight: Array, start: Array, grid: Grid, inputs: tuple[Order, Array], outputs: Array
) -> Array:
    """Codes with less joint error than those it is given, or these.

    Args:
        weight: ``[1, o, i]``, float64.
        start: Codes that were chosen row by row, ``[1, o, i]``.
        grid: Where codes lie; its scales stay.
        inputs: Order of the columns, and H, damped, ``[i, i]``.
        outputs: G, damped, ``[o, o]``.

    Returns:
        ``[1, o, i]``, of the grid's dtype.
    """
    found = _in_blocks(weight, grid, inputs, outputs)
    columns, hessian = grid.columns(weight.shape[2])[0], inputs[1]
    before, after = (
        joint_error(weight[0] - codes[0] * columns, hessian, outputs)
        for codes in (start, found)
    )
    return found if after < before else start.astype(grid.dtype)


def _in_blocks(
    weight: Array, grid: Grid, inputs: tuple[Order, Array], outputs: Array
) -> Array:
    order, hessian = inputs
    across = Order.of(outputs[None], _RIDGE)
    rows, factor = across.columns[0], across.factor[0]
    rest = weight[0][rows]
    codes = np.empty(rest.shape, grid.dtype)
    size = min(_ROWS, -(-len(rows) // _BLOCKS))
    for at in range(0, len(rows), size):
        block = slice(at, min(at + size, len(rows)))
        own = replace(grid, scale=grid.scale[:, rows[block]])
        target = rest[None, block]
        found = descend(target, compensated(target, own, order), own, hessian[None], 1)
        codes[block] = found[0]
        off = (target - found * own.columns(weight.shape[2]))[0]
        share = np.linalg.solve(factor[block, block].T, off)
        rest[block.stop :] -= factor[block, block.stop :].T @ share
    back = np.argsort(rows)
    return codes[back][None]
