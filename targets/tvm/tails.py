"""What is computed in a linear layer's or a convolution's registers before they are stored."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.quantizers import quantizer_of
from edgevit.targets.neighbors import bias_of, only_consumer
from edgevit.targets.tvm.context import Context
from edgevit.targets.tvm.kernels.epilogue import (
    PARAMETRIC,
    Activation,
    Epilogue,
    Quantize,
)
from edgevit.targets.tvm.ops_pointwise import activation
from edgevit.targets.tvm.program import Ref
from edgevit.targets.tvm.strides import Held
from edgevit.targets.tvm.vmath import UNARY
from edgevit.targets.views import View

__all__ = ["Tail", "tail"]

_LINEAR = ("MatMul", "ShiftLinear", "WideShiftLinear")
_NAMES = {"leaky": "leaky_relu", "hardsigmoid": "hard_sigmoid"}


@dataclass(frozen=True)
class Tail:
    """The nodes behind a head that its kernel takes over.

    Attributes:
        output: The value that the kernel writes.
        bias: Constant vector, if there is one.
        epilogue: The steps.
        residual: What is added, if anything.
    """

    output: ir.Value
    bias: ir.Value | None
    epilogue: Epilogue
    residual: Held | None

    def refs(self, ctx: Context, columns: int, *scales: Ref) -> tuple[Ref, ...]:
        """The epilogue's operands, in its order; ``scales`` of columns, then of rows."""
        found = list(scales)
        if self.bias is not None:
            array = constant(self.bias)
            if array is None:
                raise ValueError(f"bias {self.bias.name!r} is not constant")
            found.append(ctx.parameter(self.bias.name or "", array.reshape(columns)))
        return (*found, self.residual.ref) if self.residual is not None else tuple(found)


def _activation(node: ir.Node | None) -> Activation | None:
    found = None if node is None else activation(node)
    if found is None:
        return None
    name = _NAMES.get(found[0], found[0])
    return Activation(name, found[1]) if name in UNARY or name in PARAMETRIC else None


def _residual(ctx: Context, node: ir.Node | None, value: ir.Value, view: View) -> Held | None:
    """What ``node`` adds to ``value``, if it is there already and lies like the result."""
    if node is None or node.op_type != "Add":
        return None
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    if other is None or other is value or shape_of(other) != shape_of(value):
        return None
    if not ctx.known(other) or shape_of(node.outputs[0]) != shape_of(value):
        return None
    held = ctx.read(other)
    return held if held.view == view and held.tensor.dtype == "float32" else None


def quantized(node: ir.Node | None) -> Quantize | None:
    """What a QuantizeLinear of a whole tensor into bytes does; ``None`` for other nodes."""
    if node is None or node.op_type != "QuantizeLinear":
        return None
    found = quantizer_of(node)
    if found is None or found.axis is not None or found.block:
        return None
    dtype = found.dtype.numpy().name
    if dtype not in ("uint8", "int8"):
        return None
    return Quantize(float(found.scale), int(found.zero_point), dtype)


def tail(
    ctx: Context,
    node: ir.Node,
    view: View,
    *,
    biased: ir.Value | None = None,
    scaled: bool = False,
    by_row: bool = False,
) -> Tail:
    """Take over what follows a head.

    Args:
        ctx: Of the emission; the nodes taken over are marked as done.
        node: The head.
        view: How its result will lie.
        biased: The bias that the head has itself.
        scaled: Whether sums are integers, whose scale comes first.
        by_row: Whether rows have scales too.
    """
    value, bias = node.outputs[0], biased
    follower = only_consumer(value)
    if bias is None and follower is not None and node.op_type in _LINEAR:
        bias = bias_of(follower, value)
        if bias is not None:
            ctx.finish(follower)
            value = follower.outputs[0]
            follower = only_consumer(value)
    early = _residual(ctx, follower, value, view)
    if early is not None and follower is not None:
        ctx.finish(follower)
        value = follower.outputs[0]
        follower = only_consumer(value)
    function = _activation(follower)
    if function is not None and follower is not None:
        ctx.finish(follower)
        value = follower.outputs[0]
        follower = only_consumer(value)
    late = None if early is not None else _residual(ctx, follower, value, view)
    if late is not None and follower is not None:
        ctx.finish(follower)
        value = follower.outputs[0]
    codes = quantized(follower := only_consumer(value))
    if codes is not None and follower is not None:
        ctx.finish(follower)
        value = follower.outputs[0]
    steps = Epilogue(
        scale=scaled,
        row_scale=by_row,
        quantize=codes,
        bias=bias is not None,
        activation=function,
        residual=early is not None or late is not None,
        residual_first=early is not None,
    )
    return Tail(value, bias, steps, early if early is not None else late)
