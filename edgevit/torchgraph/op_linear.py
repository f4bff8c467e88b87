"""Products, convolutions, attention, poolings and quantizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgevit.torchgraph.site import Operator, Site, Tensor, unsupported

__all__ = ["OPERATORS"]


def _padded(t: Any, at: Site, x: Tensor, value: float) -> Tensor:
    """Spatial padding by the ``pads`` attribute."""
    top, left, bottom, right = at.get("pads", (0, 0, 0, 0))
    if not any((top, left, bottom, right)):
        return x
    return t.nn.functional.pad(x, (left, right, top, bottom), value=value)


def _conv(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    bias = x[2] if len(x) > 2 else None
    return t.nn.functional.conv2d(
        _padded(t, at, x[0], 0.0),
        x[1],
        bias,
        stride=at.get("strides", (1, 1)),
        dilation=at.get("dilations", (1, 1)),
        groups=int(at.get("group", 1)),
    )


def _conv_transpose(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    if at.get("output_shape") is not None:
        raise unsupported(at, "output_shape")
    made = t.nn.functional.conv_transpose2d(
        x[0],
        x[1],
        stride=at.get("strides", (1, 1)),
        output_padding=at.get("output_padding", (0, 0)),
        groups=int(at.get("group", 1)),
        dilation=at.get("dilations", (1, 1)),
    )
    # Pads take away what the windows reach; negative ones add what they do not.
    top, left, bottom, right = at.get("pads", (0, 0, 0, 0))
    made = t.nn.functional.pad(made, (-left, -right, -top, -bottom))
    return made if len(x) < 3 else made + x[2].reshape(1, -1, 1, 1)


def _attention(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    q, k, v = x[:3]
    scale = at.get("scale") or q.shape[-1] ** -0.5
    if k.shape[1] != q.shape[1]:  # grouped heads
        k, v = (a.repeat_interleave(q.shape[1] // a.shape[1], dim=1) for a in (k, v))
    scores = q @ k.transpose(-1, -2) * float(scale)
    if len(x) > 3 and x[3] is not None:
        scores = scores + x[3]
    return t.softmax(scores, dim=-1) @ v


def _max_pool(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    return t.nn.functional.max_pool2d(
        _padded(t, at, x[0], float("-inf")),
        at.get("kernel_shape"),
        at.get("strides", (1, 1)),
        dilation=at.get("dilations", (1, 1)),
        ceil_mode=bool(at.get("ceil_mode", 0)),
    )


def _average_pool(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    """Window sums over window sizes; sizes count padding or do not, as the node says."""
    inside = t.ones_like(x[0][:1, :1])
    counted = bool(at.get("count_include_pad", 0))
    ones = _padded(t, at, inside, 1.0 if counted else 0.0)
    sums, sizes = (_window_sums(t, at, array) for array in (_padded(t, at, x[0], 0.0), ones))
    return sums / sizes


def _window_sums(t: Any, at: Site, x: Tensor) -> Tensor:
    kernel, strides = at.get("kernel_shape"), at.get("strides", (1, 1))
    dilations = at.get("dilations", (1, 1))
    if at.get("ceil_mode", 0):  # windows that the edge cuts: zeros add nothing to a sum
        over = [
            -(x.shape[2 + i] - (kernel[i] - 1) * dilations[i] - 1) % strides[i]
            for i in range(2)
        ]
        x = t.nn.functional.pad(x, (0, over[1], 0, over[0]))
    channels = x.shape[1]
    window = t.ones((channels, 1, *kernel), dtype=x.dtype)
    return t.nn.functional.conv2d(
        x, window, stride=strides, dilation=dilations, groups=channels
    )


def _spread(t: Any, at: Site, x: Tensor, params: Tensor) -> Tensor:
    """Scale or zero point in the shape that the data broadcasts with."""
    if params.numel() == 1:
        return params.reshape(())
    axis, block = int(at.get("axis", 1)) % x.ndim, int(at.get("block_size", 0))
    if block:
        return params.repeat_interleave(block, dim=axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.ndim
    shape[axis] = params.numel()
    return params.reshape(shape)


_RANGES = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767)}


def _quantize(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    """Codes as floats; the gradient goes straight through the rounding, not beyond the range.

    Bengio, Leonard and Courville (arXiv 1308.3432): a step function has no other useful one.
    """
    zero = x[2] if len(x) > 2 and x[2] is not None else t.zeros((), dtype=t.uint8)
    low, high = _RANGES[str(zero.dtype).removeprefix("torch.")]
    exact = x[0] / _spread(t, at, x[0], x[1])
    rounded = exact + (t.round(exact) - exact).detach()
    return t.clamp(rounded + _spread(t, at, x[0], zero), low, high)


def _dequantize(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    codes = x[0].to(x[1].dtype)
    if len(x) > 2 and x[2] is not None:
        codes = codes - _spread(t, at, codes, x[2].to(x[1].dtype))
    return codes * _spread(t, at, codes, x[1])


OPERATORS: dict[str, Operator] = {
    "Attention": _attention,
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DequantizeLinear": _dequantize,
    "MatMul": lambda t, at, x: t.matmul(x[0], x[1]),
    "MaxPool": _max_pool,
    "QuantizeLinear": _quantize,
}
