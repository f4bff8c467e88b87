"""What follows an accumulator before it is stored: the tail of a linear or a convolution.

In this order: scales (integer accumulators), bias, residual and activation in either order,
quantization. Every step is elementwise over vectors of neighboring output columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from edgevit.targets.tvm import vmath
from edgevit.targets.tvm.kernels.kernel import Operand, load, spread

__all__ = ["PARAMETRIC", "PLAIN", "Activation", "Epilogue", "Quantize", "typed"]

_RANGES = {"uint8": (0, 255), "int8": (-128, 127)}


def _leaky_relu(x: Any, slope: float) -> Any:
    return tirx.Select(x < vmath.constant(0.0, x), vmath.constant(slope, x) * x, x)


def _elu(x: Any, alpha: float) -> Any:
    below = vmath.constant(alpha, x) * (vmath.exp(x) - vmath.constant(1.0, x))
    return tirx.Select(x < vmath.constant(0.0, x), below, x)


def _hard_sigmoid(x: Any, alpha: float, beta: float) -> Any:
    line = x * vmath.constant(alpha, x) + vmath.constant(beta, x)
    return vmath.minimum(1.0, vmath.maximum(0.0, line))


PARAMETRIC: Mapping[str, Callable[..., Any]] = {
    "clip": lambda x, low, high: vmath.minimum(high, vmath.maximum(low, x)),
    "elu": _elu,
    "hard_sigmoid": _hard_sigmoid,
    "leaky_relu": _leaky_relu,
}


@dataclass(frozen=True)
class Activation:
    """An elementwise function.

    Attributes:
        name: Of ``vmath.UNARY``, or of ``PARAMETRIC``.
        parameters: ``clip``: low, high; ``leaky_relu``: slope; ``elu``: alpha;
            ``hard_sigmoid``: alpha, beta.
    """

    name: str
    parameters: tuple[float, ...] = ()

    def apply(self, x: Any) -> Any:
        """The function of a float32 expression, scalar or vector."""
        if self.name in PARAMETRIC:
            return PARAMETRIC[self.name](x, *self.parameters)
        return vmath.UNARY[self.name](x)


@dataclass(frozen=True)
class Quantize:
    """ONNX's QuantizeLinear: saturate(round half to even(x / scale) + zero).

    Attributes:
        scale: Of the output, one for the whole tensor; float32.
        zero: Zero point.
        dtype: ``uint8`` or ``int8``.
    """

    scale: float
    zero: int
    dtype: str

    def apply(self, x: Any) -> Any:
        """The integers of a float32 expression."""
        low, high = _RANGES[self.dtype]
        steps = tirx.nearbyint(x / vmath.constant(self.scale, x))
        # Saturated before the zero point is added: both are exact in float32.
        steps = vmath.minimum(high - self.zero, vmath.maximum(low - self.zero, steps))
        whole = typed(steps, "int32")
        return typed(whole + _integer(self.zero, whole), self.dtype)


def typed(x: Any, dtype: str) -> Any:
    """A cast that keeps the number of lanes."""
    lanes = int(x.ty.dtype.lanes)
    return x.astype(dtype if lanes == 1 else f"{dtype}x{lanes}")


def _integer(value: int, like: Any) -> Any:
    lanes = int(like.ty.dtype.lanes)
    return spread(tirx.const(value, "int32"), lanes)


@dataclass(frozen=True)
class Epilogue:
    """Steps from accumulator to output.

    Attributes:
        scale: Multiply by a float32 operand [columns]: what makes integers reals.
        row_scale: Multiply by a float32 operand [rows]: that of data quantized row by row.
        bias: Add a float32 operand [columns].
        activation: Elementwise function, if any.
        residual: Add a float32 operand that is addressed like the output. Kernels whose
            tiles overlap read it after a neighbor may have written: it must not be the output.
        residual_first: Residual before activation.
        quantize: Integers as the output, if any.
    """

    scale: bool = False
    row_scale: bool = False
    bias: bool = False
    activation: Activation | None = None
    residual: bool = False
    residual_first: bool = False
    quantize: Quantize | None = None

    @property
    def dtype(self) -> str:
        """Of the output."""
        return self.quantize.dtype if self.quantize else "float32"

    def operands(self, columns: int, places: int, rows: int = 0) -> tuple[Operand, ...]:
        """What the steps read, in order, and last what they write.

        Args:
            columns: Length of the vectors.
            places: Elements from the output's first one to its last.
            rows: Rows of the output, where they have scales.
        """
        reads = (
            ("scale", self.scale, columns),
            ("row_scale", self.row_scale, rows),
            ("bias", self.bias, columns),
            ("residual", self.residual, places),
        )
        inputs = tuple(Operand(name, "float32", size) for name, there, size in reads if there)
        return (*inputs, Operand("output", self.dtype, places, written=True))

    def apply(
        self,
        value: Any,
        buffers: Sequence[Any],
        column: Any,
        place: Any,
        lanes: int,
        row: Any = None,
    ) -> Any:
        """The outputs of ``lanes`` neighboring columns.

        Args:
            value: The accumulators, float32 or int32.
            buffers: Those of ``operands``, in order.
            column: First column.
            place: First element's index in the output.
            lanes: How many.
            row: Of the output, where rows have scales.
        """
        names = [o.name for o in self.operands(0, 0)]
        of = dict(zip(names, buffers, strict=True))
        x = typed(value, "float32")
        if self.scale:
            x = x * load(of["scale"], column, lanes)
        if self.row_scale:
            x = x * spread(of["row_scale"][row], lanes)
        if self.bias:
            x = x + load(of["bias"], column, lanes)
        if self.residual and self.residual_first:
            x = x + load(of["residual"], place, lanes)
        if self.activation:
            x = self.activation.apply(x)
        if self.residual and not self.residual_first:
            x = x + load(of["residual"], place, lanes)
        return self.quantize.apply(x) if self.quantize else x


PLAIN = Epilogue()
