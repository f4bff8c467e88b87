"""Small canonical graphs for tests of backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

__all__ = ["GraphBuilder", "feeds_for", "run_reference"]

Array = np.ndarray[Any, Any]
OPSET = 23
SILU = "ai.edgevit"


@dataclass
class GraphBuilder:
    """Builds a canonical graph node by node, with ONNX's own shape inference.

    Attributes:
        name: Name of the graph.
    """

    name: str = "graph"
    _inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    _nodes: list[onnx.NodeProto] = field(default_factory=list)
    _constants: list[onnx.TensorProto] = field(default_factory=list)
    _known: list[onnx.ValueInfoProto] = field(default_factory=list)
    _count: int = 0

    def input(self, name: str, shape: Sequence[int], dtype: Any = np.float32) -> str:
        """Add a graph input."""
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._inputs.append(onnx.helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def const(self, array: Any, name: str = "", dtype: Any = np.float32) -> str:
        """Add an initializer (float32 unless ``dtype`` says otherwise)."""
        name = name or self._fresh("c")
        made = np.ascontiguousarray(np.asarray(array, dtype))
        shaped = made.reshape(np.shape(array))
        self._constants.append(onnx.numpy_helper.from_array(shaped, name))
        return name

    def ints(self, values: Sequence[int] | int) -> str:
        """Add an int64 initializer."""
        return self.const(values, dtype=np.int64)

    def op(
        self,
        op: str,
        *inputs: str,
        out: str | Sequence[str] = "",
        domain: str = "",
        **attrs: Any,
    ) -> str:
        """Add a node; returns the name of its first output."""
        outs = [out or self._fresh(op.lower())] if isinstance(out, str) else list(out)
        node = onnx.helper.make_node(
            op, list(inputs), outs, name=f"{op}_{outs[0]}", domain=domain, **attrs
        )
        self._nodes.append(node)
        return outs[0]

    def like(self, value: str, shape: Sequence[int]) -> str:
        """State a float32 value's shape where ONNX has no inference for its operator."""
        kind = onnx.TensorProto.FLOAT
        self._known.append(onnx.helper.make_tensor_value_info(value, kind, list(shape)))
        return value

    def silu(self, x: str, out: str = "") -> str:
        """Add the function ``ai.edgevit.Silu``."""
        return self.op("Silu", x, out=out, domain=SILU)

    def _fresh(self, base: str) -> str:
        self._count += 1
        return f"{base}_{self._count}"

    def proto(self, outputs: Sequence[str]) -> onnx.ModelProto:
        """The model with inferred shapes."""
        opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(SILU, 1)]
        graph = onnx.helper.make_graph(
            self._nodes,
            self.name,
            self._inputs,
            [onnx.ValueInfoProto(name=name) for name in outputs],
            self._constants,
            value_info=self._known,
        )
        model = onnx.helper.make_model(
            graph, opset_imports=opsets, functions=[_silu()], ir_version=10
        )
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)

    def model(self, *outputs: str) -> ir.Model:
        """The model as onnx_ir has it."""
        return ir.serde.deserialize_model(self.proto(outputs))


def _silu() -> onnx.FunctionProto:
    body = [
        onnx.helper.make_node("Sigmoid", ["x"], ["gate"]),
        onnx.helper.make_node("Mul", ["x", "gate"], ["y"]),
    ]
    imports = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_function(SILU, "Silu", ["x"], ["y"], body, imports)


def feeds_for(model: ir.Model, seed: int = 0) -> dict[str, Array]:
    """Seeded inputs: floats of a normal distribution, small positive integers, booleans."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in model.graph.inputs:
        shape = tuple(int(d) for d in value.shape.numpy()) if value.shape else ()
        dtype = np.dtype(value.dtype.numpy()) if value.dtype else np.dtype(np.float32)
        made: Array
        if dtype.kind == "f":
            made = rng.standard_normal(shape)
        elif dtype.kind == "b":
            made = rng.integers(0, 2, shape)
        else:
            made = rng.integers(0, 3, shape)
        feeds[value.name or ""] = np.asarray(made, dtype).reshape(shape)
    return feeds


def run_reference(
    model: ir.Model, feeds: Mapping[str, Array], extra: Sequence[str] = ()
) -> dict[str, Array]:
    """ONNX Runtime on the graph as it is, optimizations off.

    Args:
        model: The model.
        feeds: Its inputs.
        extra: Names of inner values to return as well.
    """
    import onnxruntime

    proto = ir.serde.serialize_model(model)
    known = {o.name for o in proto.graph.output}
    proto.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in extra if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))
