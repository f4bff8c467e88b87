"""The last bias of a network that ends in a softmax: every answer as likely as it was.

Least squares takes the mean error of a class's score to zero over all positions. What it does
to the answers depends on the few positions where the class is in doubt, and there the mean of
the error is another: PP-OCRv4 with one shift term a weight wrote 57 of 674 spaces less than in
float32, which was two thirds of all it lost. Over the bias alone the divergence
``sum of KL(p || softmax(z + b))`` is convex, and where it is least every class has the sum of
probabilities that it had: ``sum q_c = sum p_c`` (maximum likelihood of an exponential family;
Bishop, Pattern Recognition and Machine Learning, section 4.3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from edgevit.edits import Remark
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.compensated_rounding import Grid
from edgevit.passes.facts import Array, attr

__all__ = ["AnswerBias", "answer_bias", "gives_answers", "settled"]

# A class that is never in doubt says nothing of its bias: ridge of one position in doubt.
# A class with less probability than the second number in all could move by no more than it.
_RIDGE, _SEEN = 1.0, 0.02
_STEPS, _DONE = 50, 1e-4
# Inputs of a layer on one sample, with the new weights in front and true: [rows, inputs].
Pair = tuple[Array, Array]


class _Made(Protocol):
    """New weights of a layer."""

    @property
    def codes(self) -> Array: ...
    @property
    def grid(self) -> Grid: ...
    @property
    def shift(self) -> Array: ...


M = TypeVar("M", bound=_Made)


@dataclass(frozen=True)
class AnswerBias:
    """What is added to a bias, and what it does.

    Attributes:
        shift: float64 ``[C]``.
        before: Divergence without it, nats, over all positions.
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
    value = layer.out
    while len(value.uses()) == 1 and not value.is_graph_output():
        (use,) = value.uses()
        node, value = use.node, use.node.outputs[0]
        if node.op_type == "Softmax":
            last = attr(node, "axis", -1) in (-1, len(layer.out.shape or ()) - 1)
            graph = node.graph
            return last and graph is not None and value is graph.outputs[0]
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or use.idx:
            return False
    return False


def settled(layer: ChannelLayer, made: M, pairs: Sequence[Pair]) -> tuple[M, AnswerBias]:
    """New weights of such a layer with the bias that its answers want.

    Args:
        layer: As it is; see ``gives_answers``.
        made: What its weights and its bias become.
        pairs: What it reads.
    """
    assert layer.bias is not None
    true, start = layer.matrix()[0].astype(np.float64), layer.bias.astype(np.float64)
    ours = made.codes[0] * made.grid.columns(made.codes.shape[2])[0]

    def scores() -> Iterator[tuple[Array, Array]]:
        for x, t in pairs:
            yield t @ true.T + start, x @ ours.T + (start + made.shift)

    found = answer_bias(scores)
    return replace(made, shift=made.shift + found.shift), found  # type: ignore[type-var]


def answer_bias(scores: Callable[[], Iterator[tuple[Array, Array]]]) -> AnswerBias:
    """The bias with the least divergence and a ridge, by Newton's method.

    Args:
        scores: Of every sample the true scores and those that are to be mended, ``[rows, C]``;
            called twice, so that they need not be held.
    """
    before, wanted, had = 0.0, np.zeros(1), np.zeros(1)
    for true, ours in scores():
        p, q = _log_softmax(true), _log_softmax(ours)
        before += float((np.exp(p) * (p - q)).sum())
        wanted, had = wanted + np.exp(p).sum(axis=0), had + np.exp(q).sum(axis=0)
    seen = np.flatnonzero(wanted + had > _SEEN)
    shift = np.zeros(len(wanted))
    rows = np.concatenate([np.exp(_log_softmax(ours))[:, seen] for _, ours in scores()])
    shift[seen], gain = _newton(rows, wanted[seen])
    return AnswerBias(shift, before, before - gain)


def _newton(rows: Array, wanted: Array) -> tuple[Array, float]:
    """The bias of some classes, and by how much the divergence is less for it.

    Args:
        rows: Their probabilities at every position, ``[rows, C]``; the rest of 1 are others.
        wanted: Sums of probabilities that they are to have, ``[C]``.
    """
    rest = np.maximum(1 - rows.sum(axis=1), 0.0)

    def loss(bias: Array) -> float:
        return float(np.log(rows @ np.exp(bias) + rest).sum() - wanted @ bias)

    def whole(bias: Array) -> float:
        return loss(bias) + _RIDGE / 2 * float(bias @ bias)

    bias = np.zeros(len(wanted))
    for _ in range(_STEPS):
        now = rows * np.exp(bias)
        now /= (now.sum(axis=1) + rest)[:, None]
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
    off = scores.astype(np.float64)
    off -= off.max(axis=1, keepdims=True)
    return np.asarray(off - np.log(np.exp(off).sum(axis=1, keepdims=True)))
