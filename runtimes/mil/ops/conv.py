"""Convolution and its transpose.

Source: coremltools ``ops/defs/iOS15/conv.py``.
"""

from __future__ import annotations

import numpy as np

from edgevit.runtimes.mil.arithmetic import BLOCK, add, contract, round_half
from edgevit.runtimes.mil.context import Context, Kernel, integers
from edgevit.runtimes.mil.ops.windows import Windows
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]


def _conv(
    ctx: Context,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    dilations: Array | None = None,
    groups: Array | None = None,
) -> Array:
    """``out[n, o, p] = bias[o] + sum over c, k of weight[o, c, k] x[n, c, p stride + k dil]``.

    ``x [n, C, *D]``, ``weight [O, C / groups, *K]``, 1 to 3 spatial axes; the sum runs over
    the channels of o's group, channel by channel and then tap by tap.
    """
    count = 1 if groups is None else int(groups)
    if x.shape[1] != weight.shape[1] * count or weight.shape[0] % count:
        raise ValueError(
            f"weight {list(weight.shape)} in {count} groups does not fit x {list(x.shape)}"
        )
    kernel = weight.shape[2:]
    windows = Windows.over(x.shape[2:], kernel, strides, dilations, pad_type, pad)
    padded = windows.padded(x, 0.0)
    if weight.shape[1] == 1 and weight.shape[0] == count:
        result = _depthwise(windows, padded, weight, half=ctx.half)
    else:
        result = _grouped(windows, padded, weight, count, half=ctx.half)
    if bias is None:
        return result
    return add(result, bias.reshape(-1, *([1] * len(kernel))), half=ctx.half)


def _grouped(windows: Windows, x: Array, weight: Array, groups: int, *, half: bool) -> Array:
    """One matrix product per group: weights times the unfolded windows."""
    batch, out = x.shape[0], weight.shape[0]
    spatial = len(windows.kernel)
    view = windows.view(x)
    # [n, C, *out, *kernel] -> [n, C, *kernel, *out]: terms in MIL's order, pixels last
    order = [0, 1, *range(2 + spatial, 2 + 2 * spatial), *range(2, 2 + spatial)]
    terms = weight.shape[1] * int(np.prod(windows.kernel))
    columns = view.transpose(order).reshape(batch, groups, terms, -1)
    rows = weight.reshape(groups, out // groups, terms)
    result = contract(rows, columns, half=half)
    return result.reshape(batch, out, *windows.out)


def _depthwise(windows: Windows, x: Array, weight: Array, *, half: bool) -> Array:
    """A sum over taps of shifted inputs: no unfolding, each channel by itself."""
    result = np.zeros((*x.shape[:2], *windows.out), dtype=np.float32)
    scale = (-1, *([1] * len(windows.kernel)))
    partial = np.zeros_like(result)
    weights = np.moveaxis(weight[:, 0], 0, -1)  # [*kernel, C]
    last = int(np.prod(windows.kernel)) - 1
    for i, (tap, where) in enumerate(windows.taps()):
        partial += weights[tap].reshape(scale) * x[where]
        if half and (i % BLOCK == BLOCK - 1 or i == last):
            result = round_half(result + partial)
            partial[...] = 0
    return result if half else partial


def _conv_transpose(
    ctx: Context,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    pad: Array | None = None,
    output_shape: Array | None = None,
    pad_type: str = "valid",
    strides: Array | None = None,
    dilations: Array | None = None,
    groups: Array | None = None,
) -> Array:
    """The gradient of ``conv``: each input pixel adds its weighted kernel to the output.

    ``x [n, C, *D]``, ``weight [C, O / groups, *K]``. The full result, of size
    ``(D - 1) stride + (K - 1) dilation + 1``, loses ``pad``; ``same`` keeps ``D stride``;
    ``output_shape`` sets the size, at the expense of the end.
    """
    rank = x.ndim - 2
    count = 1 if groups is None else int(groups)
    steps, spread = integers(strides, [1] * rank), integers(dilations, [1] * rank)
    full = _scatter(ctx, x, weight, steps, spread, count)
    if pad_type == "custom":
        edges = integers(pad, [0] * (2 * rank))
        before, after = edges[0::2], edges[1::2]
        size = [f - b - a for f, b, a in zip(full.shape[2:], before, after, strict=True)]
    elif pad_type == "same":
        size = [d * s for d, s in zip(x.shape[2:], steps, strict=True)]
        before = tuple(max(f - n, 0) // 2 for f, n in zip(full.shape[2:], size, strict=True))
    elif pad_type == "valid":
        before, size = (0,) * rank, list(full.shape[2:])
    else:
        raise ValueError(f"expected valid, custom or same, found {pad_type!r}")
    if output_shape is not None:
        size = list(integers(output_shape, ()))[-rank:]
    result = _cut(full, before, size)
    if bias is None:
        return result
    return add(result, bias.reshape(-1, *([1] * rank)), half=ctx.half)


def _cut(full: Array, before: tuple[int, ...], size: list[int]) -> Array:
    """``size`` elements from ``before`` on along each spatial axis, zeros past the end."""
    widths = [max(b + n - f, 0) for b, n, f in zip(before, size, full.shape[2:], strict=True)]
    if any(widths):
        full = np.pad(full, [(0, 0), (0, 0), *((0, w) for w in widths)])
    where = [slice(None), slice(None)]
    where += [slice(b, b + n) for b, n in zip(before, size, strict=True)]
    return full[tuple(where)]


def _scatter(
    ctx: Context,
    x: Array,
    weight: Array,
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    groups: int,
) -> Array:
    """The full transposed convolution, without padding or bias."""
    batch, channels, *size = x.shape
    if channels != weight.shape[0] or channels % groups:
        raise ValueError(f"weight {list(weight.shape)} does not fit x {list(x.shape)}")
    out, kernel = weight.shape[1], weight.shape[2:]
    rows = weight.reshape(groups, channels // groups, -1).swapaxes(-1, -2)
    columns = x.reshape(batch, groups, channels // groups, -1)
    terms = contract(rows, columns, half=ctx.half)
    terms = terms.reshape(batch, groups * out, *kernel, *size)
    extent = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(size, strides, kernel, dilations, strict=True)
    ]
    result = np.zeros((batch, groups * out, *extent), dtype=x.dtype)
    for tap in np.ndindex(*kernel):
        spots = (
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, dilations, size, strides, strict=True)
        )
        where = (slice(None), slice(None), *spots)
        term = terms[(slice(None), slice(None), *tap)]
        result[where] = add(result[where], term, half=ctx.half)
    return result


OPERATORS: dict[str, Kernel] = {"conv": _conv, "conv_transpose": _conv_transpose}
