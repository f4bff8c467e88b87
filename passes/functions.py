"""The operators of our own: ONNX functions in domain ``ai.edgevit``.

Each has a body of standard operators, so any ONNX runtime executes a model that uses them,
and a backend that knows the name may do better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from edgevit.errors import InternalError
from edgevit.passes.function_parts import DOMAIN, OPSET, VERSION
from edgevit.passes.shift_functions import SHIFT_FUNCTIONS
from edgevit.passes.token_functions import TOKEN_FUNCTIONS

__all__ = ["DOMAIN", "FUNCTIONS", "VERSION", "ensure_function"]


def _silu() -> ir.Function:
    """``Silu(x) = x * Sigmoid(x)`` (Elfwing et al., arXiv 1702.03118)."""
    x = ir.Value(name="x")
    gate = ir.Node("", "Sigmoid", [x], outputs=[ir.Value(name="gate")])
    out = ir.Node("", "Mul", [x, gate.outputs[0]], outputs=[ir.Value(name="y")])
    graph = ir.Graph(
        [x], [out.outputs[0]], nodes=[gate, out], opset_imports={"": OPSET}, name="Silu"
    )
    return ir.Function(DOMAIN, "Silu", graph=graph, attributes=[])


def _log_quantize() -> ir.Function:
    """``table[clip(round(factor * log(x)), 0, top)]``: logarithmic codes of positive numbers.

    Inputs: x; ``factor`` (negative) and ``top``, float scalars; ``table``,
    float ``[top + 1]``.
    There is no integer kernel for it: the result is a float that takes ``top + 1`` values.
    """
    x, factor, top, table = (ir.Value(name=n) for n in ("x", "factor", "top", "table"))
    nodes: list[ir.Node] = []

    def op(kind: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        attrs = ir.convenience.convert_attributes(attributes)
        name = f"v{len(nodes)}"
        nodes.append(ir.Node("", kind, inputs, attrs, outputs=[ir.Value(name=name)]))
        return nodes[-1].outputs[0]

    # The smallest normal number: the logarithm of zero is no code.
    tiny = op("Constant", value_float=1.1754943508222875e-38)
    zero = op("Constant", value_float=0.0)
    code = op("Round", op("Mul", op("Log", op("Max", x, tiny)), factor))
    index = op("Cast", op("Clip", code, zero, top), to=int(ir.DataType.INT64))
    y = op("Gather", table, index, axis=0)
    graph = ir.Graph(
        [x, factor, top, table],
        [y],
        nodes=nodes,
        opset_imports={"": OPSET},
        name="LogQuantize",
    )
    return ir.Function(DOMAIN, "LogQuantize", graph=graph, attributes=[])


def _optical_linear() -> ir.Function:
    """``OpticalLinear(x, W) = x W``: a product that the optical target gives to light."""
    x, w = ir.Value(name="x"), ir.Value(name="w")
    out = ir.Node("", "MatMul", [x, w], outputs=[ir.Value(name="y")])
    graph = ir.Graph(
        [x, w], [out.outputs[0]], nodes=[out], opset_imports={"": OPSET}, name="OpticalLinear"
    )
    return ir.Function(DOMAIN, "OpticalLinear", graph=graph, attributes=[])


def _optical_conv() -> ir.Function:
    """``OpticalConv(x, W)``: a convolution without bias, its attributes handed through."""
    x, w = ir.Value(name="x"), ir.Value(name="w")
    kinds = dict.fromkeys(
        ("kernel_shape", "strides", "dilations", "pads"), ir.AttributeType.INTS
    )
    kinds["group"] = ir.AttributeType.INT
    handed = [ir.RefAttr(name, name, kind) for name, kind in kinds.items()]
    out = ir.Node("", "Conv", [x, w], handed, outputs=[ir.Value(name="y")])
    graph = ir.Graph(
        [x, w], [out.outputs[0]], nodes=[out], opset_imports={"": OPSET}, name="OpticalConv"
    )
    formal = [ir.Attr(name, kind, None) for name, kind in kinds.items()]
    return ir.Function(DOMAIN, "OpticalConv", graph=graph, attributes=formal)


def _shared_conv() -> ir.Function:
    """``SharedConv(x, K, b)``: pictures of tokens that all meet the kernels ``K`` alike.

    Attributes: ``tile`` ``[T, c, h, w]``, the pictures of the T tokens in ``x``; ``pads``, as
    of ``Conv``. The result is ``[T, n, h', w']``.
    """
    x, k, b = (ir.Value(name=n) for n in ("x", "k", "b"))
    handed = ir.RefAttr("value_ints", "tile", ir.AttributeType.INTS)
    shape = ir.Node("", "Constant", [], [handed], outputs=[ir.Value(name="shape")])
    pictures = ir.Node("", "Reshape", [x, *shape.outputs], outputs=[ir.Value(name="pictures")])
    pads = ir.RefAttr("pads", "pads", ir.AttributeType.INTS)
    y = ir.Node("", "Conv", [*pictures.outputs, k, b], [pads], outputs=[ir.Value(name="y")])
    graph = ir.Graph(
        [x, k, b],
        y.outputs,
        nodes=[shape, pictures, y],
        opset_imports={"": OPSET},
        name="SharedConv",
    )
    formal = [ir.Attr(name, ir.AttributeType.INTS, None) for name in ("tile", "pads")]
    return ir.Function(DOMAIN, "SharedConv", graph=graph, attributes=formal)


FUNCTIONS: Mapping[str, Callable[[], ir.Function]] = {
    "LogQuantize": _log_quantize,
    "OpticalConv": _optical_conv,
    "OpticalLinear": _optical_linear,
    "SharedConv": _shared_conv,
    "Silu": _silu,
    **SHIFT_FUNCTIONS,
    **TOKEN_FUNCTIONS,
}


def ensure_function(model: ir.Model, name: str) -> None:
    """Define ``ai.edgevit.<name>`` and what it calls in a model that does not yet.

    Raises:
        InternalError: There is no such function.
    """
    if name not in FUNCTIONS:
        raise InternalError(f"no function {name!r} in {DOMAIN}: known are {sorted(FUNCTIONS)}")
    model.opset_imports.setdefault(DOMAIN, VERSION)
    if (DOMAIN, name, "") not in model.functions:
        function = FUNCTIONS[name]()
        model.functions[function.identifier()] = function
        for called in sorted({n.op_type for n in function if n.domain == DOMAIN}):
            ensure_function(model, called)
