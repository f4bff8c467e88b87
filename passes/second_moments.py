"""What layers read, as second moments: streamed, in memory that does not grow with samples.

For a layer the moments of its filters' inputs say everything that least squares needs: how an
error of weights shows at the output, and which weights make good for rounded inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.errors import InputError
from edgevit.model import shape_of
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.facts import Array, attr
from edgevit.passes.quantizable import narrows

# Rows for each unknown weight of a filter, and the fewest of a sample: moments of more are the
# same within a few percent, and take most of the time.
_ROWS = 24
_FEWEST = 48

__all__ = [
    "Moments",
    "enough",
    "filter_inputs",
    "float_input",
    "moments",
    "no_samples",
    "positions",
    "require_finite",
]


@dataclass
class Moments:
    """Running sums over rows of filter inputs, group by group.

    ``x`` is what a layer reads, ``t`` what it would read without quantizers; they are the
    same where there are none.

    Attributes:
        hessian: ``sum x x^T``, float32 ``[g, i, i]``.
        cross: ``sum t x^T``, or ``None`` where t is x.
        mean: ``sum x``, float64 ``[g, i]``.
        target: ``sum t``.
        rows: How many.
    """

    hessian: Array
    cross: Array | None
    mean: Array
    target: Array
    rows: int = 0

    @classmethod
    def empty(cls, group: int, inputs: int, paired: bool) -> Moments:
        """Nothing seen yet."""
        square, line = (group, inputs, inputs), (group, inputs)
        cross = np.zeros(square, np.float32) if paired else None
        return cls(np.zeros(square, np.float32), cross, np.zeros(line), np.zeros(line))

    def add(self, x: Array, t: Array) -> None:
        """Take more rows, ``[g, rows, i]``."""
        self.hessian += x.swapaxes(1, 2) @ x
        if self.cross is not None:
            self.cross += t.swapaxes(1, 2) @ x
        self.mean += x.sum(axis=1, dtype=np.float64)
        self.target += t.sum(axis=1, dtype=np.float64)
        self.rows += x.shape[1]


def positions(layer: ChannelLayer, limit: int, rng: np.random.Generator) -> Array:
    """Which outputs of a sample are looked at: all, or ``limit`` of them drawn at random.

    Returns:
        Indices into the flattened positions (batch and space, or rows), sorted.
    """
    out = shape_of(layer.node.outputs[0])
    count = int(np.prod(out)) // layer.outputs
    if count <= limit:
        return np.arange(count)
    return np.sort(rng.choice(count, limit, replace=False))


def filter_inputs(x: Array, layer: ChannelLayer, at: Array) -> Array:
    """The numbers under the filters at output positions, float32 ``[g, rows, inputs]``.

    Args:
        x: What the layer reads.
        layer: Its geometry; padding is zero.
        at: Flattened output positions, as ``positions`` gives them.
    """
    if not layer.is_conv:
        rows = x.reshape(-1, x.shape[-1])[at]
        return np.ascontiguousarray(rows, np.float32)[None]
    node, (kh, kw) = layer.node, layer.weight.shape[2:]
    top, left, bottom, right = (int(p) for p in attr(node, "pads", (0, 0, 0, 0)))
    (sy, sx), (dy, dx) = attr(node, "strides", (1, 1)), attr(node, "dilations", (1, 1))
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    _, _, height, width = shape_of(node.outputs[0])
    n, oy, ox = np.unravel_index(at, (x.shape[0], height, width))
    ys = (oy * sy)[:, None] + np.arange(kh) * dy
    xs = (ox * sx)[:, None] + np.arange(kw) * dx
    # [rows, kh, kw, C]: advanced indices come first
    taken = padded[n[:, None, None], :, ys[:, :, None], xs[:, None, :]]
    split = taken.reshape(len(at), kh, kw, layer.group, -1)
    rows = split.transpose(3, 0, 4, 1, 2).reshape(layer.group, len(at), -1)
    return np.ascontiguousarray(rows, np.float32)


def float_input(value: ir.Value) -> ir.Value:
    """What an activation was before its quantizer; the value itself without one."""
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return value
    node = node.inputs[0].producer()
    if node is None or node.op_type != "QuantizeLinear" or node.inputs[0] is None:
        return value
    source = node.inputs[0]
    clip = source.producer()
    if clip is not None and narrows(clip) and clip.inputs[0] is not None:
        return clip.inputs[0]
    return source


def enough(layer: ChannelLayer, limit: int, samples: int) -> int:
    """Rows of a sample, so that all together are ``_ROWS`` for each input of a filter."""
    inputs = int(layer.matrix().shape[2])
    return min(limit, max(_FEWEST, -(-_ROWS * inputs // max(samples, 1))))


def moments(
    layers: Sequence[ChannelLayer],
    found: Iterable[Mapping[str, Array]],
    limit: int,
    samples: int,
    seed: int,
) -> dict[str, Moments]:
    """Moments of every layer's input over a stream of samples.

    Args:
        layers: Layers, each by its name in the result.
        found: For each sample the arrays by value name: inputs of the layers, before and
            behind their quantizers.
        limit: Output positions of a sample that are looked at; fewer where filters are short
            and many samples come.
        samples: Number of samples to expect.
        seed: Of their choice.

    Raises:
        InputError: No samples, or an input that is not finite.
    """
    sums: dict[str, Moments] = {}
    for count, values in enumerate(found):
        for layer in layers:
            rng = np.random.default_rng([seed, count])
            at = positions(layer, enough(layer, limit, samples), rng)
            x = filter_inputs(values[str(layer.x.name)], layer, at)
            source = str(float_input(layer.x).name)
            paired = source != layer.x.name
            t = filter_inputs(values[source], layer, at) if paired else x
            if layer.name not in sums:
                sums[layer.name] = Moments.empty(x.shape[0], x.shape[2], paired)
            sums[layer.name].add(x, t)
    if not sums and layers:
        raise no_samples()
    for name, seen in sums.items():
        require_finite(name, seen)
    return sums


def no_samples() -> InputError:
    """What is said where there is nothing to look at."""
    return InputError("no calibration samples", hint="give at least one with --calib")


def require_finite(name: str, seen: Moments) -> None:
    """Refuse moments that say nothing.

    Raises:
        InputError: The input of the layer is not finite on calibration data.
    """
    if not np.isfinite(seen.hessian).all():
        raise InputError(
            f"the input of layer {name!r} is not finite on calibration data",
            hint="check the preprocessing and the samples",
        )
