"""Corners that no model of the zoo reaches: NaN, scalars, views of inputs, long chains."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgevit.targets.tvm.lower import TVMBackend
from edgevit.targets.tvm.tables import refusal
from tests.support.graphs import GraphBuilder, run_reference
from tests.support.native import lower, run_all

Array = np.ndarray[Any, Any]
INF, NAN = np.inf, np.nan


def _graph() -> tuple[Any, dict[str, Array]]:
    """Outputs of several corners in one graph: one compilation."""
    graph, rng = GraphBuilder(), np.random.default_rng(0)
    graph.input("v", (6,))
    graph.input("w", (6,))
    graph.input("image", (2, 3, 7, 6))
    graph.op("Max", "v", "w", out="max")
    graph.op("Min", "v", "w", out="min")
    mean = graph.op("ReduceMean", "image", graph.ints([0, 1, 2, 3]), keepdims=1)
    graph.op("Reshape", mean, graph.ints([]), out="scalar")
    window: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [1, 2], "dilations": [2, 2]}
    graph.op("AveragePool", "image", pads=[2, 2, 2, 2], out="pool", **window)
    x = "image"
    for i in range(12):  # 24^6 names of the input where it is written out
        x = graph.op("Softplus" if i % 2 else "LeakyRelu", x, out="chain" if i == 11 else "")
    feeds = {
        "v": np.array([INF, -INF, INF, 1, NAN, 1], np.float32),
        "w": np.array([INF, -INF, -INF, NAN, 1, 2], np.float32),
        "image": rng.standard_normal((2, 3, 7, 6), np.float32),
    }
    return graph.model("max", "min", "scalar", "pool", "chain"), feeds


def test_corners_equal_onnxruntime() -> None:
    model, feeds = _graph()
    expected = run_reference(model, feeds)
    (result,) = run_all([(lower(model), feeds)])
    assert result.error == ""
    for name in ("max", "min"):
        np.testing.assert_array_equal(result.outputs[name], expected[name], err_msg=name)
    for name in ("scalar", "pool", "chain"):
        # Sums of at most 252 terms, or 12 functions in a row, each within 2^-20.
        assert result.outputs[name].shape == expected[name].shape
        limit = 16 * 2.0**-20 * float(np.abs(expected[name]).max())
        off = np.abs(result.outputs[name] - expected[name])
        assert float(off.max()) <= limit, name


def test_a_view_of_an_input_is_replayed_with_its_reader() -> None:
    graph, rng = GraphBuilder(), np.random.default_rng(1)
    graph.input("x", (2, 3, 1, 2, 4))
    graph.op("Transpose", "x", out="turned", perm=[4, 2, 0, 3, 1])
    graph.op("Softmax", "turned", out="y", axis=2)
    model = graph.model("y")
    x = rng.standard_normal((2, 3, 1, 2, 4), np.float32)
    turned = x.transpose(4, 2, 0, 3, 1).copy()
    known = {**run_reference(model, {"x": x}), "x": x, "turned": turned}
    replayed = TVMBackend().replay(lower(model))
    feeds = {b.name: known[b.name] for b in replayed.part.inputs}
    (result,) = run_all([(replayed, feeds)])
    assert result.error == ""
    assert "y" in result.outputs
    for name, found in result.outputs.items():  # softmax of 2: a few roundings of exp
        np.testing.assert_allclose(found, known[name], rtol=2.0**-18, err_msg=name)


def test_an_operand_without_elements_is_refused() -> None:
    graph = GraphBuilder()
    graph.input("empty", (0, 3))
    graph.op("Relu", "empty", out="y")
    reasons = [refusal(node) for node in graph.model("y").graph]
    assert any(reason is not None and "no elements" in reason for reason in reasons)
