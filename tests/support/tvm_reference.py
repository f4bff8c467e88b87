"""What the TVM backend's kernels should compute, in float64, and how far they may be off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.special

from edgevit.targets.tvm.kernels.conv import Window
from edgevit.targets.tvm.kernels.epilogue import Activation, Epilogue

Array = np.ndarray[Any, Any]
EPSILON = 2.0**-24

# Each with the largest slope it has, and an absolute error of its own (vmath's).
ACTIVATIONS: Mapping[Activation, tuple[Any, float, float]] = {
    Activation("relu"): (lambda x: np.maximum(x, 0), 1.0, 0.0),
    Activation("gelu"): (lambda x: x * scipy.special.ndtr(x), 1.13, 5e-7),
    Activation("sigmoid"): (scipy.special.expit, 0.25, 5e-7),
    Activation("clip", (-0.5, 1.5)): (lambda x: np.clip(x, -0.5, 1.5), 1.0, 0.0),
    Activation("leaky_relu", (0.1,)): (lambda x: np.where(x < 0, 0.1 * x, x), 1.0, 0.0),
    Activation("elu", (1.0,)): (lambda x: np.where(x < 0, np.expm1(x), x), 1.0, 5e-7),
    Activation("hard_sigmoid", (0.2, 0.5)): (lambda x: np.clip(0.2 * x + 0.5, 0, 1), 0.2, 0.0),
}


def finished(
    epilogue: Epilogue, sums: Array, bound: Array, operands: Mapping[str, Array]
) -> tuple[Array, Array]:
    """An epilogue of exact sums, and a bound of the error.

    Args:
        epilogue: The steps.
        sums: float64, columns last.
        bound: Of the error of the sums that the kernel has made.
        operands: By name: ``scale``, ``bias`` [columns], ``residual`` like the sums.
    """
    x = sums
    if epilogue.scale:
        x, bound = x * operands["scale"], bound * np.abs(operands["scale"])
        bound = bound + EPSILON * np.abs(x)
    if epilogue.bias:
        x = x + operands["bias"]
        bound = bound + EPSILON * np.abs(x)
    if epilogue.residual and epilogue.residual_first:
        x = x + operands["residual"]
        bound = bound + EPSILON * np.abs(x)
    if epilogue.activation:
        function, slope, own = ACTIVATIONS[epilogue.activation]
        # Four roundings of a relative error each are more than any of them needs.
        x = function(x)
        bound = bound * slope + own * (1 + np.abs(x)) + 4 * EPSILON * np.abs(x)
    if epilogue.residual and not epilogue.residual_first:
        x = x + operands["residual"]
        bound = bound + EPSILON * np.abs(x)
    return x, bound


def sum_bound(depth: int, magnitudes: Array) -> Array:
    """Of a float32 sum of ``depth`` products in any order: gamma_depth times sum |a b|."""
    gamma = depth * EPSILON / (1 - depth * EPSILON)
    return np.asarray(gamma * magnitudes)


def convolved(images: Array, weights: Array, window: Window, groups: int) -> Array:
    """Convolution of padded NHWC images with [Cout, Cin / groups, KH, KW], tap by tap."""
    out, channels = weights.shape[:2]
    (high, wide), (down, right) = window.output, window.strides
    result = np.zeros((window.batch, high, wide, out))
    for group in range(groups):
        inside = images[..., group * channels : (group + 1) * channels].astype(np.float64)
        outs = slice(group * out // groups, (group + 1) * out // groups)
        for i in range(window.kernel[0]):
            for j in range(window.kernel[1]):
                top, left = i * window.dilations[0], j * window.dilations[1]
                rows = slice(top, top + down * (high - 1) + 1, down)
                columns = slice(left, left + right * (wide - 1) + 1, right)
                result[..., outs] += inside[:, rows, columns] @ weights[outs, :, i, j].T
    return result


def excess(got: Array, want: Array, bound: Array) -> float:
    """The largest error in units of its bound; NaN counts as infinite."""
    ratio = np.abs(got - want) / np.maximum(bound, 1e-30)
    return float(np.nan_to_num(ratio, nan=np.inf).max())
