"""How much an error of a channel matters at the network's output: a diagonal Hessian.

For the divergence ``L = KL(p(y) || p(y + dy))`` of the output distribution the second order in
an error of an inner value O is ``dO^T H dO / 2``, and for independent errors of a channel's
elements only the diagonal counts. Along a random-sign direction s within channel c,
``E[s^T H s] = sum_i H_ii`` over the channel (Hutchinson's estimator), and two forward passes
give the curvature: ``(L(O + e s) + L(O - e s)) / e^2``, since L is zero and flat at e = 0.
``edgevit.torchgraph.curvature`` measures the same diagonal with gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgevit.errors import InputError
from edgevit.passes.facts import Array
from edgevit.passes.subgraphs import Piece
from edgevit.reference_stream import run_stream

__all__ = [
    "Loss",
    "Probe",
    "at_logits",
    "curvature",
    "divergence",
    "forward_weights",
    "output_loss",
    "probabilities",
    "weighted_loss",
]

Loss = Callable[[Array, Array], float]
# A step of a tenth of the deviation: large against float32's noise (at 1e-6 the difference is
# noise alone), small against what bends the network.
STEP = 0.1


@dataclass(frozen=True)
class Probe:
    """How the curvature is measured.

    Attributes:
        samples: Samples looked at.
        groups: Channels are put into at most so many groups of similar deviation; one value
            is measured for each. 0: every channel by itself.
        seed: Of the signs.
    """

    samples: int = 4
    groups: int = 16
    seed: int = 0


def probabilities(y: Array) -> Array:
    """The distribution over the last axis that an output stands for, float64.

    An output that is one already (a softmax is part of the network) stays as it is.
    """
    wide = y.astype(np.float64)
    if wide.min() >= 0 and np.allclose(wide.sum(axis=-1), 1.0, atol=1e-3):
        return np.asarray(wide / wide.sum(axis=-1, keepdims=True))
    shifted = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def divergence(p: Array, q: Array) -> float:
    """``KL(p || q)`` over the last axis, summed over all others, in nats."""
    tiny = np.finfo(np.float64).tiny
    return float((p * (np.log(p + tiny) - np.log(q + tiny))).sum())


def output_loss(true: Array, found: Array) -> float:
    """Divergence of the distributions that two outputs of the network stand for."""
    return divergence(probabilities(true), probabilities(found))


def at_logits(found: Sequence[Array]) -> Array:
    """Mean ``H_ii`` of every channel at the output itself: ``p (1 - p)``, float64 ``[C]``.

    The second derivative of the divergence by a logit (Bishop, Pattern Recognition and
    Machine Learning, eq. 4.110). The channels are the answers, the last axis.
    """
    rows = np.concatenate([probabilities(y).reshape(-1, y.shape[-1]) for y in found])
    return np.asarray((rows * (1 - rows)).mean(axis=0))


def weighted_loss(weights: Array, axis: int) -> Loss:
    """Half the squared error, with a weight for every channel of ``axis``."""

    def loss(true: Array, found: Array) -> float:
        off = np.moveaxis(found.astype(np.float64) - true, axis, -1)
        return 0.5 * float((off * off * weights).sum())

    return loss


def curvature(plus: float, minus: float, step: float) -> float:
    """Second derivative at a minimum with value zero; never negative."""
    return max(plus + minus, 0.0) / step**2


def forward_weights(
    piece: Piece,
    axis: int,
    found: Sequence[Mapping[str, Array]],
    probe: Probe,
    loss: Loss = output_loss,
) -> Array:
    """Mean ``H_ii`` of every channel, float64 ``[C]``, by forward passes of a piece only.

    Args:
        piece: What lies between the value whose errors are weighed, its first input, and
            where they are judged, its first output.
        axis: Channel axis of the value.
        found: For each sample the arrays of the piece's inputs.
        probe: How.
        loss: Of the output as it is and as it becomes.

    Raises:
        InputError: No samples.
    """
    if not found:
        raise InputError("no calibration samples", hint="give at least one with --calib")
    name, used = piece.inputs[0], found[: probe.samples]
    shape = used[0][name].shape
    deviation = np.mean([_deviation(sample[name], axis) for sample in used], axis=0)
    members = _groups(deviation, probe.groups)
    steps = [STEP * max(float(deviation[m].mean()), 1e-12) for m in members]
    feeds = _feeds(used, name, axis, members, steps, probe.seed)
    answers = run_stream(piece.content, (_only(feed, piece) for feed in feeds))
    outputs = (answer[piece.outputs[0]] for answer in answers)
    total = _sum(outputs, loss, members, steps, len(used))
    return np.asarray(total * shape[axis] / (float(np.prod(shape)) * len(used)))


def _deviation(array: Array, axis: int) -> Array:
    """Of every channel; of the tensor where a channel does not vary."""
    axes = tuple(i for i in range(array.ndim) if i != axis)
    own, whole = array.std(axis=axes).astype(np.float64), float(array.std())
    return np.where(own > 1e-3 * whole, own, whole)


def _groups(deviation: Array, count: int) -> list[Array]:
    """Channels with similar deviation together, so that one step suits them."""
    order = np.argsort(deviation, kind="stable")
    pieces = len(order) if count == 0 else min(count, len(order))
    return [part for part in np.array_split(order, pieces) if len(part)]


def _feeds(
    used: Sequence[Mapping[str, Array]],
    name: str,
    axis: int,
    members: Sequence[Array],
    steps: Sequence[float],
    seed: int,
) -> Iterator[dict[str, Array]]:
    """For each sample: as it is, then every group plus and minus its step."""
    rng = np.random.default_rng(seed)
    for sample in used:
        yield dict(sample)
        for channels, step in zip(members, steps, strict=True):
            moved = _signs(sample[name].shape, axis, channels, rng) * np.float32(step)
            for sign in (1, -1):
                yield {**sample, name: sample[name] + sign * moved}


def _signs(
    shape: tuple[int, ...], axis: int, channels: Array, rng: np.random.Generator
) -> Array:
    signs = np.zeros(shape, np.float32)
    at: list[slice | Array] = [slice(None)] * len(shape)
    at[axis] = channels
    part = signs[tuple(at)]
    signs[tuple(at)] = rng.choice(np.array([-1, 1], np.float32), part.shape)
    return signs


def _only(feed: Mapping[str, Array], piece: Piece) -> dict[str, Array]:
    return {name: feed[name] for name in piece.inputs}


def _sum(
    outputs: Iterator[Array],
    loss: Loss,
    members: Sequence[Array],
    steps: Sequence[float],
    samples: int,
) -> Array:
    total = np.zeros(sum(len(m) for m in members))
    for _ in range(samples):
        true = next(outputs)
        for channels, step in zip(members, steps, strict=True):
            plus, minus = (loss(true, next(outputs)) for _ in range(2))
            total[channels] += curvature(plus, minus, step) / len(channels)
    return total
