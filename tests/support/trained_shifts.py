"""A network as ``examples.shiftadd_training`` exports it, made without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgevit.passes.functions import DOMAIN, VERSION, ensure_function
from edgevit.shift_codes import encode, levels

__all__ = ["Trained"]

Array = np.ndarray[Any, Any]
CONV: dict[str, Any] = {
    "kernel_shape": [4, 4],
    "strides": [4, 4],
    "dilations": [1, 1],
    "pads": [0, 0, 0, 0],
    "group": 1,
}


@dataclass
class Trained:
    """Patches of a picture [1, 3, 16, 16], and a perceptron of two layers on the 16 tokens.

    Attributes:
        terms: Of each weight.
        wide: Which form.
        folded: Whether weights are written as floats, as tools that fold constants do.
        off: Units in the last place that one weight of each linear layer is off, if folded.
    """

    terms: int = 1
    wide: bool = False
    folded: bool = False
    off: int = 0
    _nodes: list[ir.Node] = field(default_factory=list, repr=False)
    _held: list[ir.Value] = field(default_factory=list, repr=False)
    _rng: np.random.Generator = field(
        default_factory=lambda: np.random.default_rng(0), repr=False
    )

    def proto(self) -> onnx.ModelProto:
        """The model file; layers are called ``patches``, ``first`` and ``second``."""
        x = ir.val("x", ir.DataType.FLOAT, [1, 3, 16, 16])
        y = self._op("Reshape", self._conv(x), self._const(np.array([1, 32, 16])))
        y = self._op("Transpose", y, perm=[0, 2, 1])
        y = self._op("Relu", self._linear("first", y, 32, 64))
        y = self._linear("second", y, 64, 32)
        y.shape, y.dtype = ir.Shape([1, 16, 32]), ir.DataType.FLOAT
        graph = ir.Graph(
            [x],
            [y],
            nodes=self._nodes,
            initializers=self._held,
            opset_imports={"": 23, DOMAIN: VERSION},
            name="trained",
        )
        model = ir.Model(graph, ir_version=10)
        for kind in {n.op_type for n in self._nodes if n.domain == DOMAIN}:
            ensure_function(model, kind)
        return ir.to_proto(model)

    def _op(
        self, kind: str, *inputs: ir.Value, out: str = "", domain: str = "", **attributes: Any
    ) -> ir.Value:
        attrs = ir.convenience.convert_attributes(attributes)
        made = [ir.Value(name=out or f"v{len(self._nodes)}")]
        self._nodes.append(ir.Node(domain, kind, inputs, attrs, outputs=made))
        return made[0]

    def _const(self, array: Array) -> ir.Value:
        name, dtype = f"c{len(self._held)}", ir.DataType.from_numpy(array.dtype)
        self._held.append(ir.val(name, dtype, array.shape, const_value=ir.tensor(array)))
        return self._held[-1]

    def _weight(self, inputs: int, outputs: int) -> tuple[Array, Array]:
        """Integers with the largest in every column, and powers of two."""
        known = levels(self.terms, self.wide)
        q = self._rng.choice(known, (inputs, outputs))
        q[0] = known[-1]
        low = -19 if self.wide else -11
        return q, (2.0 ** self._rng.integers(low, low + 3, outputs)).astype(np.float32)

    def _shift(self, kind: str, out: str, inputs: list[Any], **attributes: Any) -> ir.Value:
        """One call of a function; ``inputs``: x, q, scale and, of a convolution, a bias."""
        x, q, scale, *bias = inputs
        packed = encode(q, self.terms, self.wide)
        signs = [] if packed.signs is None else [self._const(packed.signs)]
        held = [self._const(packed.codes), *signs, self._const(scale), *bias]
        name = f"Wide{kind}" if self.wide else kind
        attributes["inputs"] = len(q)
        return self._op(name, x, *held, out=out, domain=DOMAIN, **attributes)

    def _conv(self, x: ir.Value) -> ir.Value:
        q, scale = self._weight(48, 32)
        bias = self._const(self._rng.normal(size=32).astype(np.float32))
        if self.folded:
            weight = (q * scale).astype(np.float32).T.reshape(32, 3, 4, 4)
            return self._op("Conv", x, self._const(weight), bias, out="patches", **CONV)
        shape: dict[str, Any] = {"weight_shape": [32, 3, 4, 4], **CONV}
        return self._shift("ShiftConv", "patches", [x, q, scale, bias], **shape)

    def _linear(self, name: str, x: ir.Value, inputs: int, outputs: int) -> ir.Value:
        q, scale = self._weight(inputs, outputs)
        if self.folded:
            weight = (q * scale).astype(np.float32)
            for _ in range(self.off):
                weight[0, 5] = np.nextafter(weight[0, 5], np.float32(np.inf))
            y = self._op("MatMul", x, self._const(weight), out=name)
        else:
            y = self._shift("ShiftLinear", name, [x, q, scale])
        bias = self._const(self._rng.normal(size=outputs).astype(np.float32))
        return self._op("Add", y, bias)
