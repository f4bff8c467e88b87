"""Replay of integer artifacts, and of layers whose activations LiteRT quantizes as it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgevit.backend import Lowered
from edgevit.quantizers import mark_as_run
from edgevit.roundoff import roundoff
from edgevit.targets.litert.lower import LiteRTBackend
from edgevit.targets.litert.writer import pack
from edgevit.tolerance import bounds
from tests.support.graphs import feeds_for, run_reference
from tests.support.quantized import QuantizedBuilder
from tests.support.tflite import lower, run_all
from tests.targets.litert.case import noise

Array = np.ndarray[Any, Any]
_BACKEND = LiteRTBackend()


def _network() -> ir.Model:
    g = QuantizedBuilder()
    x = g.pair(g.input("x", (1, 6, 7, 5)), (0.03, 2), name="x")
    y = g.op("Conv", x, g.stored((8, 6, 3, 3), 0), g.const(noise(8)), kernel_shape=[3, 3],
             strides=[1, 1], pads=[1] * 4, dilations=[1, 1], group=1, out="conv")  # fmt: skip
    codes = g.quantize(g.op("Relu", y), (0.12, -128), out="conv.quantized")
    rows = g.op("Reshape", g.op("Transpose", codes, perm=[0, 2, 3, 1]), g.ints([1, 35, 8]))
    data = g.dequantize(rows, (0.12, -128), out="rows")
    product = g.op("MatMul", data, g.stored((8, 12), 1), out="product")
    z = g.pair(g.op("Add", product, g.const(noise(12))), (0.3, 5), name="linear")
    g.op("Softmax", z, axis=2, out="soft")
    return g.model("soft")


def _values(model: ir.Model) -> Mapping[str, Array]:
    feeds = feeds_for(model)
    names = [str(o.name) for node in model.graph for o in node.outputs]
    return {**feeds, **run_reference(model, feeds, names)}


def _past(lowered: Lowered, model: ir.Model, precision: str = "w8a8") -> dict[str, float]:
    """Values past their bound -> error over bound."""
    values = _values(model)
    cut = frozenset(b.name for b in lowered.values)
    unit = roundoff("float32", dynamic=_BACKEND.arithmetic(precision).dynamic)
    limits = bounds(model, values, cut, unit)
    result = run_all([(_BACKEND.replay(lowered), values)])[0]
    assert result.error == ""
    found = {}
    for name, array in result.outputs.items():
        error = np.abs(array.astype(np.float64) - values[name]).max()
        if error > limits[name]:
            found[name] = float(error)
    return found


def test_integer_tensors_are_values_of_the_replay() -> None:
    model = _network()
    lowered = lower(model, "w8a8")
    dtypes = {b.name: b.artifact_dtype for b in lowered.values}
    assert dtypes["x.quantized"] == dtypes["conv.quantized"] == "int8"
    assert dtypes["linear.dequantized"] == "float32"
    assert not {"conv", "product", "x.dequantized", "rows"} & dtypes.keys(), "fused"
    assert _past(lowered, model) == {}


def _broken(lowered: Lowered, op: str, operand: int, factor: float) -> Lowered:
    ((path, content),) = lowered.files.items()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    kinds = [c.builtinCode for c in model.operatorCodes]
    code, graph = getattr(schema.BuiltinOperator, op), model.subgraphs[0]
    operator = next(o for o in graph.operators if kinds[o.opcodeIndex] == code)
    weight = graph.tensors[operator.inputs[operand]].quantization
    weight.scale = [s * factor for s in weight.scale]
    return dataclasses.replace(lowered, files={path: pack(model)})


@pytest.mark.parametrize(
    ("op", "where"), [("CONV_2D", "conv.quantized"), ("FULLY_CONNECTED", "linear.quantized")]
)
def test_a_wrong_scale_shows_where_it_is(op: str, where: str) -> None:
    model = _network()
    assert list(_past(_broken(lower(model, "w8a8"), op, 1, 1.02), model)) == [where]


def _stored_layers() -> ir.Model:
    g = QuantizedBuilder()
    x = g.input("x", (1, 6, 7, 5))
    y = g.op("Conv", x, g.stored((8, 6, 3, 3), 0), g.const(noise(8)), kernel_shape=[3, 3],
             strides=[1, 1], pads=[1] * 4, dilations=[1, 1], group=1, out="conv")  # fmt: skip
    rows = g.op("Transpose", g.op("Reshape", y, g.ints([1, 8, 35])), perm=[0, 2, 1])
    g.op("MatMul", rows, g.stored((8, 12), 1, seed=2), out="linear")
    return g.model("linear")


def test_activations_quantized_at_run_time_are_bounded_by_half_a_step() -> None:
    model = _stored_layers()
    dynamic, plain = lower(model, "w8a8-dyn"), lower(model, "w8")
    assert _past(dynamic, model, "w8a8-dyn") == {}
    assert _past(plain, model, "w8") == {}
    # Float bounds reject the same artifact: its layers really compute on integers.
    assert _past(dynamic, model, "w8").keys() == {"conv", "linear"}
    ran = run_all([(dynamic, feeds_for(model)), (plain, feeds_for(model))])
    assert "DEQUANTIZE" not in ran[0].operators
    assert ran[1].operators.count("DEQUANTIZE") == 2


def test_a_layer_of_an_integer_network_quantizes_as_it_runs_where_the_graph_asks() -> None:
    model, plain = _stored_layers(), _stored_layers()
    mark_as_run(next(n for n in model.graph if n.op_type == "MatMul"))
    lowered = lower(model, "w8a8")
    assert _past(lowered, model) == {}
    # The same artifact where the graph does not ask: that layer alone computes on integers.
    assert _past(lowered, plain).keys() == {"linear"}
    ran = run_all([(lowered, feeds_for(model)), (lower(plain, "w8a8"), feeds_for(model))])
    assert [r.operators.count("DEQUANTIZE") for r in ran] == [1, 2]
