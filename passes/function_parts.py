"""What bodies of ``ai.edgevit`` functions are built from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

__all__ = ["DOMAIN", "OPSET", "VERSION", "Body"]

DOMAIN = "ai.edgevit"
VERSION = 1
OPSET = 23


class Body:
    """The nodes of a function, collected in order."""

    def __init__(self, *inputs: str) -> None:
        self.inputs = tuple(ir.Value(name=name) for name in inputs)
        self._nodes: list[ir.Node] = []

    def op(
        self,
        kind: str,
        *inputs: ir.Value,
        handed: Mapping[str, tuple[str, ir.AttributeType]] | None = None,
        domain: str = "",
        outputs: int = 1,
        **attributes: object,
    ) -> ir.Value:
        """Append an operator; returns its last output.

        Args:
            kind: Operator.
            inputs: Its inputs.
            handed: Attributes taken from the function's: own name -> the function's, and type.
            domain: Of the operator; ``ai.edgevit`` calls another function.
            outputs: How many it has.
            attributes: Attributes with a value.
        """
        attrs: list[ir.Attr] = [
            ir.RefAttr(own, theirs, kind_) for own, (theirs, kind_) in (handed or {}).items()
        ]
        attrs += ir.convenience.convert_attributes(attributes)
        name = f"v{len(self._nodes)}"
        made = [ir.Value(name=f"{name}.{i}") for i in range(outputs - 1)]
        made.append(ir.Value(name=name))
        self._nodes.append(ir.Node(domain, kind, inputs, attrs, outputs=made))
        return made[-1]

    def constant(self, value: object, dtype: type[np.generic]) -> ir.Value:
        """A constant array."""
        return self.op("Constant", value=ir.tensor(np.asarray(value, dtype)))

    def function(
        self, name: str, output: ir.Value, attributes: Mapping[str, ir.AttributeType]
    ) -> ir.Function:
        """The finished function."""
        calls = any(node.domain == DOMAIN for node in self._nodes)
        imports = {"": OPSET, DOMAIN: VERSION} if calls else {"": OPSET}
        graph = ir.Graph(
            self.inputs, [output], nodes=self._nodes, opset_imports=imports, name=name
        )
        formal = [ir.Attr(key, kind, None) for key, kind in attributes.items()]
        return ir.Function(DOMAIN, name, graph=graph, attributes=formal)
