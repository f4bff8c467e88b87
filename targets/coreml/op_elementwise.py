"""Arithmetic, comparisons, logic, selection and casts."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import dtype_of
from edgevit.targets.coreml.context import Context
from edgevit.targets.coreml.rule import Lower, Rule, i32, masks_only, number_in

__all__ = ["TABLE"]


def _binary(op: str) -> Lower:
    def lower(ctx: Context, node: ir.Node) -> None:
        x, y = (ctx.get(v) for v in node.inputs)
        ctx.emit(node.outputs[0], op, x=x, y=y)

    return lower


def _add(ctx: Context, node: ir.Node) -> None:
    x, y = (ctx.addend(v) for v in node.inputs)
    ctx.emit(node.outputs[0], "add", x=x, y=y)


def _unary(op: str, **extra: float) -> Lower:
    def lower(ctx: Context, node: ir.Node) -> None:
        more = {key: ctx.scalar(number) for key, number in extra.items()}
        ctx.emit(node.outputs[0], op, x=ctx.get(node.inputs[0]), **more)

    return lower


def _floats_only(node: ir.Node) -> str | None:
    value = node.inputs[0]
    if value is not None and not np.issubdtype(dtype_of(value), np.floating):
        return f"{node.op_type} of {dtype_of(value)} does not exist in ML programs"
    return None


def _no_bool(node: ir.Node) -> str | None:
    if any(v is not None and dtype_of(v) == np.bool_ for v in node.inputs):
        return f"{node.op_type} of bool does not exist in ML programs"
    return None


def _neg(ctx: Context, node: ir.Node) -> None:
    x = node.inputs[0]
    minus: Any = ctx.scalar(-1) if ctx.is_float(x) else i32(-1)
    ctx.emit(node.outputs[0], "mul", x=ctx.get(x), y=minus)


def _pow(ctx: Context, node: ir.Node) -> None:
    power = number_in(node, 1, 1.0)
    x, out = ctx.get(node.inputs[0]), node.outputs[0]
    if ctx.shape(out) != tuple(x.shape) or power not in (2.0, 0.5):
        ctx.emit(out, "pow", x=x, y=ctx.get(node.inputs[1]))
        return
    ctx.emit(out, "square" if power == 2.0 else "sqrt", x=x)


def _refuse_pow(node: ir.Node) -> str | None:
    base, exponent = node.inputs
    assert base is not None
    assert exponent is not None
    if dtype_of(base) != dtype_of(exponent):
        return f"base is {dtype_of(base)}, exponent {dtype_of(exponent)}: dtypes must agree"
    return _floats_only(node)


def _div(ctx: Context, node: ir.Node) -> None:
    x, y = (ctx.get(v) for v in node.inputs)
    out = node.outputs[0]
    if ctx.is_float(out):
        ctx.emit(out, "real_div", x=x, y=y)
        return
    # ONNX truncates, floor_div floors: add 1 where the signs differ and a rest remains.
    floor = ctx.temp(out, "floor", "floor_div", x=x, y=y)
    back = ctx.temp(out, "back", "mul", x=floor, y=y)
    rest = ctx.temp(out, "rest", "not_equal", x=back, y=x)
    low_x = ctx.temp(out, "negative_x", "less", x=x, y=i32(0))
    low_y = ctx.temp(out, "negative_y", "less", x=y, y=i32(0))
    differ = ctx.temp(out, "signs", "logical_xor", x=low_x, y=low_y)
    fix = ctx.temp(out, "fix", "logical_and", x=rest, y=differ)
    one = ctx.temp(out, "one", "cast", x=fix, dtype="int32")
    ctx.emit(out, "add", x=floor, y=one)


def _compare(op: str) -> Lower:
    def lower(ctx: Context, node: ir.Node) -> None:
        out = node.outputs[0]
        sides = [ctx.get(v) for v in node.inputs]
        if all(v is not None and dtype_of(v) == np.bool_ for v in node.inputs):
            sides = [
                ctx.temp(out, f"int{i}", "cast", x=side, dtype="int32")
                for i, side in enumerate(sides)
            ]
        ctx.emit(out, op, x=sides[0], y=sides[1])

    return lower


def _where(ctx: Context, node: ir.Node) -> None:
    cond, a, b = (ctx.get(v) for v in node.inputs)
    ctx.emit(node.outputs[0], "select", cond=cond, a=a, b=b)


_CASTS = {"b": "bool", "i": "int32", "f": ""}


def _cast(ctx: Context, node: ir.Node) -> None:
    out, x = node.outputs[0], ctx.get(node.inputs[0])
    source = node.inputs[0]
    assert source is not None
    kind = dtype_of(out).kind
    if kind == dtype_of(source).kind:
        # float64 -> float32 and int64 -> int32 are one dtype in the program.
        ctx.bind(out, x)
        return
    name = _CASTS[kind] or ("fp16" if ctx.dtype == np.float16 else "fp32")
    if kind == "b":
        # A cast to bool tests for zero; a comparison says so in every runtime.
        zero: Any = ctx.scalar(0) if ctx.is_float(source) else i32(0)
        ctx.emit(out, "not_equal", x=x, y=zero)
        return
    ctx.emit(out, "cast", x=x, dtype=name)


def _refuse_cast(node: ir.Node) -> str | None:
    source, target = node.inputs[0], dtype_of(node.outputs[0])
    assert source is not None
    narrow = target.kind in "iu" and target.itemsize < 4
    if narrow and dtype_of(source).kind != "b":
        return f"a cast to {target} wraps around; ML programs compute in int32"
    return None


TABLE: dict[str, Rule] = {
    "Add": Rule(_add, _no_bool, saturates=True, narrow=masks_only),
    "Sub": Rule(_binary("sub"), _no_bool),
    "Mul": Rule(_binary("mul"), _no_bool),
    "Div": Rule(_div, _no_bool),
    "Pow": Rule(_pow, _refuse_pow),
    "Max": Rule(_binary("maximum"), _no_bool, saturates=True),
    "Min": Rule(_binary("minimum"), _no_bool, saturates=True),
    "Abs": Rule(_unary("abs")),
    "Neg": Rule(_neg),
    "Sign": Rule(_unary("sign")),
    "Exp": Rule(_unary("exp"), _floats_only),
    "Log": Rule(_unary("log", epsilon=0.0), _floats_only),
    "Sqrt": Rule(_unary("sqrt"), _floats_only),
    "Reciprocal": Rule(_unary("inverse", epsilon=0.0), _floats_only),
    "Floor": Rule(_unary("floor"), _floats_only),
    "Ceil": Rule(_unary("ceil"), _floats_only),
    "Round": Rule(_unary("round"), _floats_only),
    "Sin": Rule(_unary("sin"), _floats_only),
    "Cos": Rule(_unary("cos"), _floats_only),
    "Not": Rule(_unary("logical_not")),
    "Equal": Rule(_compare("equal")),
    "Less": Rule(_compare("less"), saturates=True),
    "Greater": Rule(_compare("greater"), saturates=True),
    "LessOrEqual": Rule(_compare("less_equal"), saturates=True),
    "GreaterOrEqual": Rule(_compare("greater_equal"), saturates=True),
    "And": Rule(_binary("logical_and")),
    "Or": Rule(_binary("logical_or")),
    "Where": Rule(_where, saturates=True),
    "Cast": Rule(_cast, _refuse_cast),
}
