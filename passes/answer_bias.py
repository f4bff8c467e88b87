"""The last bias of a network that ends in a softmax: every answer as likely as it was.

Least squares takes the mean error of a class's score to zero over all positions. What it does
to the answers depends on the few positions where the class is in doubt, and there the mean of
the error is another: PP-OCRv4 with one shift term a weight wrote 57 of 674 spaces less than in
float32, which was two thirds of all it lost. Over the bias alone the divergence
``sum of KL(p || softmax(z + b))`` is convex, and where it is least every class has the sum of
probabilities that it had, but for a ridge: ``sum q_c = sum p_c`` (maximum likelihood of an
exponential family; Bishop, Pattern Recognition and Machine Learning, section 4.3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgevit.edits import Remark
from edgevit.errors import InputError
from edgevit.model import shape_of
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.compensated_rounding import Grid
from edgevit.passes.facts import Array, attr, single_use
from edgevit.passes.quantizable import narrows

__all__ = ["AnswerBias", "Made", "Pair", "answer_bias", "fitted_bias", "gives_answers"]

# A class that is never in doubt says nothing of its bias: ridge of one position in doubt.
# Least sum of a class's probabilities, true and ours, for which it is moved, and how many are.
_RIDGE, _SEEN, _MOST = 1.0, 0.02, 1024
_STEPS, _DONE = 50, 1e-4
# Inputs of a layer on one sample, with the new weights in front and true: [rows, inputs].
Pair = tuple[Array, Array]


class Made(Protocol):
    """New weights of a layer."""

    @property
    def codes(self) -> Array:
        """``[g, o, i]``."""

    @property
    def grid(self) -> Grid:
        """What they mean."""

    @property
    def shift(self) -> Array:
        """To be added to the bias, ``[C_out]``."""


@dataclass(frozen=True)
class AnswerBias:
    """What is added to a bias, and what it does.

    Attributes:
        shift: float64 ``[C]``.
        before: Divergence without it, nats, over all positions that were looked at.
        after: The same with it.
    """

    shift: Array
    before: float
    after: float

    def remark(self, layer: ChannelLayer) -> Remark:
        """For the report."""
        return Remark(
            f"answers: bias of {layer.name} fitted to them; divergence, nats: "
            f"{self.before:.3g} without, {self.after:.3g} with it"
        )


def gives_answers(layer: ChannelLayer) -> bool:
    """Whether the network's first output is the softmax of a linear layer with a bias.

    Outputs without a softmax may be scores or anything else: they are left alone.
    """
    if layer.is_conv or layer.bias is None:
        return False
    value, last = layer.out, len(shape_of(layer.out)) - 1
    while single_use(value):
        (use,) = value.uses()
        node, value = use.node, use.node.outputs[0]
        if node.op_type == "Softmax" and attr(node, "axis", -1) in (-1, last):
            graph = node.graph
            return graph is not None and value is graph.outputs[0] and not value.uses()
        quantizes = narrows(node) or node.op_type in ("QuantizeLinear", "DequantizeLinear")
        if use.idx or not quantizes:
            return False
    return False


def fitted_bias(layer: ChannelLayer, made: Made, pairs: Sequence[Pair]) -> AnswerBias:
    """What is to be added to the bias of such a layer, besides ``made.shift``.

    Args:
        layer: As it is; see ``gives_answers``.
        made: What its weights and its bias become.
        pairs: What it reads.

    Raises:
        InputError: It is not finite.
    """
    assert layer.bias is not None
    if not all(np.isfinite(array).all() for pair in pairs for array in pair):
        raise InputError(f"what {layer.name!r} reads is not finite on calibration samples")
    true, start = layer.matrix()[0].astype(np.float64), layer.bias.astype(np.float64)
    ours = made.codes[0] * made.grid.columns(made.codes.shape[2])[0]

    def scores() -> Iterator[tuple[Array, Array]]:
        for x, t in pairs:
            yield t @ true.T + start, x @ ours.T + (start + made.shift)

    return answer_bias(scores)


def answer_bias(scores: Callable[[], Iterator[tuple[Array, Array]]]) -> AnswerBias:
    """The bias with the least divergence and a ridge, by Newton's method.

    Args:
        scores: Of every sample the true scores and those that are to be mended, ``[rows, C]``;
            called twice, so that they need not be held. Minus infinity is a class that cannot
            be.
    """
    before, wanted, had = 0.0, np.zeros(1), np.zeros(1)
    for true, ours in scores():
        p, q = _log_softmax(true), _log_softmax(ours)
        mass = np.exp(p)
        before += float((mass * np.subtract(p, q, where=mass > 0, out=np.zeros_like(p))).sum())
        wanted, had = wanted + mass.sum(axis=0), had + np.exp(q).sum(axis=0)
    often = np.argsort(-(wanted + had), kind="stable")[:_MOST]
    seen = np.sort(often[(wanted + had)[often] > _SEEN])
    rows, rest = [], []
    for _, ours in scores():
        q = _log_softmax(ours)
        rows.append(q[:, seen])
        rest.append(_log_sum(np.delete(q, seen, axis=1)))
    shift = np.zeros(len(wanted))
    shift[seen], gain = _newton(np.concatenate(rows), np.concatenate(rest), wanted[seen])
    return AnswerBias(shift, before, before - gain)


def _newton(rows: Array, rest: Array, wanted: Array) -> tuple[Array, float]:
    """The bias of some classes, and by how much the divergence is less for it.

    Args:
        rows: Logarithms of their probabilities at every position, ``[rows, C]``.
        rest: Of all others' together, ``[rows]``.
        wanted: Sums of probabilities that they are to have, ``[C]``.
    """

    def total(bias: Array) -> Array:
        return np.logaddexp(_log_sum(rows + bias), rest)

    def loss(bias: Array) -> float:
        return float(total(bias).sum() - wanted @ bias)

    def whole(bias: Array) -> float:
        return loss(bias) + _RIDGE / 2 * float(bias @ bias)

    bias = np.zeros(len(wanted))
    for _ in range(_STEPS):
        now = np.exp(rows + bias - total(bias)[:, None])
        slope = now.sum(axis=0) - wanted + _RIDGE * bias
        curve = np.diag(now.sum(axis=0) + _RIDGE) - now.T @ now
        step = np.linalg.solve(curve, slope)
        length = 1.0
        # Convex: a step that is short enough is downhill, unless there is nothing to gain.
        while length > _DONE and not whole(bias - length * step) < whole(bias):
            length /= 2
        if length <= _DONE:
            break
        bias -= length * step
        if np.abs(step).max() < _DONE:
            break
    return bias, loss(np.zeros_like(bias)) - loss(bias)


def _log_softmax(scores: Array) -> Array:
    """Over the last axis, float64."""
    wide = scores.astype(np.float64)
    return np.asarray(wide - _log_sum(wide)[:, None])


def _log_sum(logs: Array) -> Array:
    """``log sum exp`` over the last axis; minus infinity of nothing, and where all are."""
    peak = logs.max(axis=1, initial=-np.inf)
    safe = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):  # log 0: no class is left
        return np.asarray(safe + np.log(np.exp(logs - safe[:, None]).sum(axis=1)))
