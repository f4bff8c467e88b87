"""Whether calibration samples look like what the model's first layers expect.

Nothing here changes what is computed: a mismatch is a warning, because only the person who
trained the model knows how its images were prepared. NaN and infinity are errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.calibration import DataSource
from edgevit.errors import InputError
from edgevit.model import constant
from edgevit.preprocess import Preprocess

__all__ = ["check_samples"]

Array = np.ndarray[Any, Any]
# Pixels that nobody scaled reach beyond this; no usual normalization does.
RAW = 100.0
# Results of a first layer on such pixels; on normalized ones they are of the order of one.
LARGE = 50.0
# A share of the preprocessing's range that even dark or flat pictures go beyond together.
NARROW = 0.25
# Rounding of the preprocessing's float32 arithmetic, as a share of its range.
ROUNDING = 1e-3
# Means of a small calibration set differ from those of the training data, but not by one
# standard deviation in the quadratic mean over channels.
SHIFTED = 1.0
_MOVES = frozenset({"Cast", "Identity", "Pad", "Reshape", "Transpose", "Squeeze", "Unsqueeze"})


@dataclass
class _Seen:
    """What was seen of one input.

    Attributes:
        mean: Sum, in the end the mean, over all axes but the second; float64.
    """

    low: float
    high: float
    mean: Array
    square: float
    count: int = 0


def check_samples(
    model: ir.Model, samples: DataSource, preprocess: Preprocess | None
) -> tuple[str, ...]:
    """Warnings about calibration samples; streams over them once.

    1. An input that is constant over all samples.
    2. Values that the recorded preprocessing cannot give, or a small part of those it can.
    3. Without preprocessing: values of raw pixels in front of a layer that does not scale.
    4. Means that the batch norm behind a first convolution was not trained on.

    Args:
        model: The source model, batch norms not folded yet.
        samples: Calibration samples of its inputs.
        preprocess: As recorded, if at all.

    Raises:
        InputError: A sample holds NaN or infinity.
    """
    found: list[str] = []
    seen = _observe(samples)
    for value in model.graph.inputs:
        name = str(value.name)
        if name not in seen:
            continue
        one = seen[name]
        if one.low == one.high:
            found.append(
                f"input {name!r} is {one.low:g} in every calibration sample: ranges say "
                "nothing about other inputs"
            )
            continue
        found += _against_preprocess(name, one, preprocess, len(samples))
        found += _against_layers(name, one, value, preprocess)
    return tuple(found)


def _observe(samples: DataSource) -> dict[str, _Seen]:
    """Range, means of channels and mean square of every float input."""
    found: dict[str, _Seen] = {}
    for index, sample in enumerate(samples):
        for name, array in sample.items():
            if array.dtype.kind != "f" or array.size == 0:
                continue
            if not np.all(np.isfinite(array)):
                raise InputError(
                    f"calibration sample {index}: input {name!r} has NaN or infinity",
                    hint="leave the sample out, or repair what prepares it",
                )
            _update(found, name, array)
    for seen in found.values():
        seen.mean, seen.square = seen.mean / seen.count, seen.square / seen.count
    return found


def _update(found: dict[str, _Seen], name: str, array: Array) -> None:
    wide = array.astype(np.float64)
    axes = tuple(i for i in range(wide.ndim) if i != 1) if wide.ndim > 1 else None
    mean = np.atleast_1d(wide.mean(axis=axes))
    seen = found.setdefault(name, _Seen(math.inf, -math.inf, np.zeros_like(mean), 0.0))
    seen.low, seen.high = min(seen.low, float(wide.min())), max(seen.high, float(wide.max()))
    seen.mean, seen.square = seen.mean + mean, seen.square + float(np.mean(wide**2))
    seen.count += 1


def _against_preprocess(
    name: str, seen: _Seen, preprocess: Preprocess | None, count: int
) -> Iterator[str]:
    if preprocess is None or seen.mean.size > 4:
        return
    low, high = _span(preprocess)
    slack = ROUNDING * (high - low)
    values = f"input {name!r} holds values from {seen.low:.3g} to {seen.high:.3g}"
    says = f"the recorded preprocessing gives {low:.3g} to {high:.3g}"
    if seen.low < low - slack or seen.high > high + slack:
        yield f"{values}, but {says}: the samples were prepared in another way"
    elif count > 1 and seen.high - seen.low < NARROW * (high - low):
        yield f"{values}, a small part of what {says.removeprefix('the ')}"


def _span(preprocess: Preprocess) -> tuple[float, float]:
    """The least and the largest number that an image can become."""
    width = preprocess.channels
    means, stds = (
        v if len(v) > 1 else tuple(v) * width for v in (preprocess.mean, preprocess.std)
    )
    ends = [
        (level * preprocess.scale - m) / s
        for m, s in zip(means, stds, strict=True)
        for level in (0, 255)
    ]
    if preprocess.fit == "pad":
        ends.append(preprocess.pad)
    return min(ends), max(ends)


def _against_layers(
    name: str, seen: _Seen, value: ir.Value, preprocess: Preprocess | None
) -> Iterator[str]:
    layer = _first_layer(value)
    weight = None if layer is None else constant(layer.inputs[1])
    if layer is None or weight is None:
        return
    raw = preprocess is None and seen.low >= 0 and RAW < seen.high <= 255
    if raw and _gain(layer, weight) * math.sqrt(seen.square) > LARGE:
        yield (
            f"input {name!r} holds values from {seen.low:g} to {seen.high:g}, as raw pixels "
            f"do, and the first layer, {layer.op_type} {layer.name!r}, does not scale them: "
            "give --preprocess, or samples that are normalized"
        )
    shift = _shift(layer, weight, seen.mean)
    if shift > SHIFTED:
        yield (
            f"the means of input {name!r} are not those that the model was trained on: behind "
            f"the first layer they are {shift:.1f} standard deviations from what its batch "
            "norm expects"
        )


def _first_layer(value: ir.Value) -> ir.Node | None:
    """The convolution or product that reads an input before anything scales it."""
    at = value
    while len(uses := at.uses()) == 1:
        ((node, index),) = ((u.node, u.idx) for u in uses)
        if index == 0 and node.op_type in ("Conv", "Gemm", "MatMul"):
            return node
        if index != 0 or node.op_type not in _MOVES:
            return None
        at = node.outputs[0]
    return None


def _gain(layer: ir.Node, weight: Array) -> float:
    """Largest factor from the mean square of independent inputs to that of a result."""
    axes = tuple(range(1, weight.ndim)) if layer.op_type == "Conv" else (weight.ndim - 2,)
    return float(np.sqrt(np.sum(weight.astype(np.float64) ** 2, axis=axes)).max(initial=0.0))


def _shift(layer: ir.Node, weight: Array, means: Array) -> float:
    """Quadratic mean over channels of (mean - running mean) / running deviation.

    The mean of a convolution's result follows from the means of its input's channels, borders
    aside: ``E[y_o] = sum_c E[x_c] sum_k W_ock + b_o``. 0 where no batch norm tells.
    """
    readers = [use.node for use in layer.outputs[0].uses()]
    norm = readers[0] if len(readers) == 1 else None
    groups = layer.attributes.get_int("group", 1)
    if norm is None or norm.op_type != "BatchNormalization" or layer.op_type != "Conv":
        return 0.0
    trained, variance = (constant(v) for v in norm.inputs[3:5])
    if trained is None or variance is None or groups != 1 or weight.shape[1] != means.size:
        return 0.0
    bias = constant(layer.inputs[2]) if len(layer.inputs) > 2 else None
    summed = weight.astype(np.float64).sum(axis=tuple(range(2, weight.ndim)))
    expected = summed @ means + (0.0 if bias is None else bias)
    epsilon = norm.attributes.get_float("epsilon", 1e-5) or 0.0
    return float(np.sqrt(np.mean((expected - trained) ** 2 / (variance + epsilon))))
