"""What an error is worth at the network's output, by gradients: the diagonal Hessian.

For the divergence ``L = KL(p(y) || p(y + dy))`` the gradient is zero at dy = 0, so that the
Hessian along an inner value O is the Gauss-Newton matrix itself, and that is Fisher's:

    H = J^T (diag p - p p^T) J = sum_c p_c g_c g_c^T,   g_c = d log p_c / dO,   J = dy / dO

(Martens, "New insights and perspectives on the natural gradient method", arXiv 1412.1193,
sections 8 and 9). Its diagonal is the mean squared gradient of the log-likelihood over answers
drawn from the network's own distribution; not over labels, nor over the one best answer. Two
ways, both with one backward pass for every value of the network at once:

1. *Exact*, where the output has few elements: one backward pass for each, of
   ``sqrt(p_c) log p_c`` with ``p_c`` held fixed; squares summed.
2. *Random signs* (Hutchinson; Bekas, Kokiopoulou and Saad, 2007): a backward pass of
   ``sum_c v_c sqrt(p_c) log p_c`` has squares whose expectation over ``v_c = +-1`` is that.

An output with several distributions (a text line) is their product: divergences add, and so
do their Hessians. The same with ``sqrt(w_c) O_c`` for the squared error at a bridge's exit,
``sum_c w_c dO_c^2 / 2``, whose Hessian is ``J^T diag(w) J``.

``between_channels`` keeps the whole matrix ``E[g g^T]`` of a value's channels, the second
factor of the Hessian along a linear layer's weights where its inputs and gradients are
independent: ``E[g g^T] (x) E[x x^T]`` (Martens and Grosse, "K-FAC", arXiv 1503.05671,
section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.errors import InputError, UnsupportedModelError
from edgevit.torchgraph.interpret import interpreter
from edgevit.torchgraph.site import Tensor

__all__ = ["Draws", "Exit", "between_channels", "curvatures"]

Array = np.ndarray[Any, Any]
# Gradients along a value and its channel axis -> what is summed over backward passes.
_Square = Callable[[Tensor, int], Array]


@dataclass(frozen=True)
class Draws:
    """How many backward passes.

    Attributes:
        count: Random sign vectors a sample; an output of no more elements is taken exactly.
        seed: Of the signs.
        dtype: ``float32``, or ``float64``.
    """

    count: int = 16
    seed: int = 0
    dtype: str = "float32"


@dataclass(frozen=True, eq=False)
class Exit:
    """Where errors are judged by their weighted squares, in the place of the output.

    Attributes:
        value: Value name.
        weights: Of its channels, non-negative.
        axis: Channel axis.
    """

    value: str
    weights: Array
    axis: int


def curvatures(
    model: ir.Model,
    axes: Mapping[str, int],
    samples: Iterable[Mapping[str, Array]],
    draws: Draws,
    end: Exit | None = None,
) -> dict[str, Array]:
    """Mean ``H_ii`` of every channel of values, float64 ``[C]`` each.

    Args:
        model: Canonical model; its first output stands for distributions over its last axis.
        axes: Value name -> channel axis, of the values whose errors are weighed.
        samples: Of the model's inputs.
        draws: How.
        end: Where errors are judged; ``None``: by divergence at the output.

    Raises:
        InputError: No samples, or a curvature that is not finite.
        BackendMissingError: torch is not installed.
        UnsupportedModelError: An operator has no gradient way.
    """
    return _measured(model, axes, samples, draws, end, _by_channel)


def between_channels(
    model: ir.Model,
    axes: Mapping[str, int],
    samples: Iterable[Mapping[str, Array]],
    draws: Draws,
) -> dict[str, Array]:
    """Mean ``E[g g^T]`` over positions, ``[C, C]`` of ``draws.dtype``.

    On its diagonal are ``curvatures``.

    Args:
        model: As in ``curvatures``.
        axes: As in ``curvatures``.
        samples: Of the model's inputs.
        draws: How.

    Raises:
        InputError: As ``curvatures``.
        BackendMissingError: torch is not installed.
        UnsupportedModelError: An operator has no gradient way.
    """
    return _measured(model, axes, samples, draws, None, _products)


def _measured(
    model: ir.Model,
    axes: Mapping[str, int],
    samples: Iterable[Mapping[str, Array]],
    draws: Draws,
    end: Exit | None,
    square: _Square,
) -> dict[str, Array]:
    """Mean over samples of what ``square`` makes of gradients."""
    machine = interpreter(model, draws.dtype)
    rng = np.random.default_rng(draws.seed)
    sums: dict[str, Array] = {}
    count = 0
    for sample in samples:
        count += 1
        values = machine.run(sample)
        scores = (
            _log_likelihood(machine.t, model, values)
            if end is None
            else _weighted(machine.t, values[end.value], end)
        )
        found = _squares(machine.t, scores, values, axes, draws, rng, square)
        for name, squares in found.items():
            if name in sums:
                sums[name] += squares
            else:
                sums[name] = squares
    if not count:
        raise InputError("no calibration samples", hint="give at least one with --calib")
    for name, total in sums.items():
        if not np.isfinite(total).all():
            raise InputError(
                f"the curvature along {name!r} is not finite on calibration data",
                hint="check the preprocessing and the samples, or use another curvature",
            )
    for total in sums.values():
        total /= count
    return sums


def _log_likelihood(t: Any, model: ir.Model, values: Mapping[str, Tensor]) -> Tensor:
    """``sqrt(p) log p`` of every answer, ``p`` held fixed."""
    logs = _logs(t, model.graph.outputs[0], values)
    return (logs / 2).exp().detach() * logs


def _logs(t: Any, end: ir.Value, values: Mapping[str, Tensor]) -> Tensor:
    """Logarithms of the distribution over the last axis that an output stands for."""
    y, node = values[str(end.name)], end.producer()
    if not y.is_floating_point():
        raise UnsupportedModelError(
            f"curvature is that of answers' likelihoods, and output {str(end.name)!r} holds "
            f"{str(y.dtype).removeprefix('torch.')}",
            hint="give the scores as the first output, or measure without gradients",
        )
    last = y.ndim - 1
    if node is not None and node.op_type == "Softmax" and node.inputs[0] is not None:
        axis = int(node.attributes["axis"].as_int())
        if axis % y.ndim == last:  # from its input: no logarithm of what rounds to zero
            return t.log_softmax(values[str(node.inputs[0].name)], dim=-1)
    total = y.sum(dim=-1, keepdim=True)
    if bool((y >= 0).all()) and bool(((total - 1).abs() < 1e-3).all()):
        tiny = float(np.finfo(np.float32).tiny)
        return y.clamp(min=tiny).log() - total.log()
    return t.log_softmax(y, dim=-1)


def _weighted(t: Any, value: Tensor, end: Exit) -> Tensor:
    shape = [1] * value.ndim
    shape[end.axis] = -1
    weights = t.tensor(np.sqrt(end.weights), dtype=value.dtype).reshape(shape)
    return value * weights


def _squares(
    t: Any,
    scores: Tensor,
    values: Mapping[str, Tensor],
    axes: Mapping[str, int],
    draws: Draws,
    rng: np.random.Generator,
    square: _Square,
) -> dict[str, Array]:
    """Squared gradients of one sample: summed over backward passes, mean over positions."""
    targets = [values[name] for name in axes]
    # A constant has no gradient: nothing on calibration data moves it.
    live = [i for i, target in enumerate(targets) if target.requires_grad]
    ways = list(axes.values())
    found = [square(_nothing(t, v, axis), axis) for v, axis in zip(targets, ways, strict=True)]
    if not live or not scores.requires_grad:  # the output is a constant
        return dict(zip(axes, found, strict=True))
    vectors, share = _vectors(t, scores, draws, rng)
    for vector in vectors:
        gradients = t.autograd.grad(
            scores, [targets[i] for i in live], vector, retain_graph=True, allow_unused=True
        )
        for i, gradient in zip(live, gradients, strict=True):
            if gradient is not None:
                found[i] += share * square(gradient, ways[i])
    return dict(zip(axes, found, strict=True))


def _nothing(t: Any, value: Tensor, axis: int) -> Tensor:
    """Gradients of zero, at a single position."""
    shape = [1] * value.ndim
    shape[axis] = value.shape[axis]
    return t.zeros(shape, dtype=value.dtype)


def _by_channel(gradient: Tensor, axis: int) -> Array:
    others = [i for i in range(gradient.ndim) if i != axis]
    wide = gradient.detach().double() ** 2
    return np.asarray((wide.mean(dim=others) if others else wide).numpy())


def _products(gradient: Tensor, axis: int) -> Array:
    rows = gradient.detach().movedim(axis, -1).reshape(-1, gradient.shape[axis])
    return np.asarray((rows.T @ rows / len(rows)).numpy())


def _vectors(
    t: Any, scores: Tensor, draws: Draws, rng: np.random.Generator
) -> tuple[Iterator[Tensor], float]:
    """What the backward passes start with, and the share of each in the sum."""
    size = scores.numel()
    if size <= draws.count:
        rows: Sequence[Array] = list(np.eye(size))
        return (_like(t, scores, row) for row in rows), 1.0
    drawn = (rng.choice(np.array([-1.0, 1.0]), size) for _ in range(draws.count))
    return (_like(t, scores, row) for row in drawn), 1.0 / draws.count


def _like(t: Any, scores: Tensor, row: Array) -> Tensor:
    return t.tensor(row, dtype=scores.dtype).reshape(scores.shape)
