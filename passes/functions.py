"""The operators of our own: ONNX functions in domain ``ai.edgevit``.

Each has a body of standard operators, so any ONNX runtime executes a model that uses them,
and a backend that knows the name may do better.
"""

from __future__ import annotations

import onnx_ir as ir

from edgevit.errors import InternalError

__all__ = ["DOMAIN", "FUNCTIONS", "VERSION", "ensure_function"]

DOMAIN = "ai.edgevit"
VERSION = 1
_OPSET = 23


def _silu() -> ir.Function:
    """``Silu(x) = x * Sigmoid(x)`` (Elfwing et al., arXiv 1702.03118)."""
    x = ir.Value(name="x")
    gate = ir.Node("", "Sigmoid", [x], outputs=[ir.Value(name="gate")])
    out = ir.Node("", "Mul", [x, gate.outputs[0]], outputs=[ir.Value(name="y")])
    graph = ir.Graph(
        [x], [out.outputs[0]], nodes=[gate, out], opset_imports={"": _OPSET}, name="Silu"
    )
    return ir.Function(DOMAIN, "Silu", graph=graph, attributes=[])


FUNCTIONS = {"Silu": _silu}


def ensure_function(model: ir.Model, name: str) -> None:
    """Define ``ai.edgevit.<name>`` in a model that does not yet; import the domain.

    Raises:
        InternalError: There is no such function.
    """
    if name not in FUNCTIONS:
        raise InternalError(f"no function {name!r} in {DOMAIN}: known are {sorted(FUNCTIONS)}")
    model.opset_imports.setdefault(DOMAIN, VERSION)
    if (DOMAIN, name, "") not in model.functions:
        function = FUNCTIONS[name]()
        model.functions[function.identifier()] = function
