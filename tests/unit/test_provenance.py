"""Source nodes behind rewritten ones, counted by hand on a layer norm among other things."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgevit.loading import load
from edgevit.passes.order import canonicalize
from edgevit.provenance import Shares, shares

# Nine nodes of a layer norm; the sizes of a Reshape, which nothing computes at run time; a sum
# of constants; a Relu, the Reshape, and a Neg whose result is an output of its own.
SOURCE = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[2,3,8] x) => (float[2,24] y, float[2,3,8] z) <float two = {2}, float eps = {1e-5},
   int64[1] zero = {0}, int64[1] rest = {-1}, int64[1] one = {1}>
{
  m = ReduceMean<axes = [-1]>(x)
  d = Sub(x, m)
  s = Pow(d, two)
  v = ReduceMean<axes = [-1]>(s)
  e = Add(v, eps)
  r = Sqrt(e)
  n = Div(d, r)
  a = Mul(n, g)
  b = Add(a, h)
  t = Relu(b)
  all = Shape(t)
  first = Slice(all, zero, one)
  sizes = Concat<axis = 0>(first, rest)
  y = Reshape(t, sizes)
  four = Add(two, two)
  z = Mul(b, four)
}
"""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[ir.Model, ir.Model]:
    model = onnx.parser.parse_model(SOURCE)
    for name in "gh":
        array = np.linspace(1, 2, 8, dtype=np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "m.onnx")
    source = load(tmp_path / "m.onnx").model
    canonical = source.clone()
    canonicalize(canonical)
    return source, canonical


def _nodes(model: ir.Model, op: str) -> set[ir.Node]:
    found = {node for node in model.graph if node.op_type == op}
    assert found, op
    return found


def test_nothing_left_over(pair: tuple[ir.Model, ir.Model]) -> None:
    source, canonical = pair
    assert len(source.graph) == 16
    assert shares(source, canonical, set()) == Shares(nodes=12, left_over=0)


@pytest.mark.parametrize(
    ("op", "count"), [("LayerNormalization", 9), ("Relu", 1), ("Reshape", 1), ("Mul", 1)]
)
def test_a_left_over_node_stands_for_its_source_nodes(
    pair: tuple[ir.Model, ir.Model], op: str, count: int
) -> None:
    source, canonical = pair
    found = shares(source, canonical, _nodes(canonical, op))
    assert found == Shares(nodes=12, left_over=count)


def test_everything_left_over(pair: tuple[ir.Model, ir.Model]) -> None:
    source, canonical = pair
    assert shares(source, canonical, set(canonical.graph)) == Shares(12, 12)


def test_an_output_that_nothing_fed_has_no_nodes(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]>'
        "g (float[2] x) => (float[2] y) { y = Relu(x) }"
    )
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value_float=1.0))
    onnx.save(model, tmp_path / "m.onnx")
    source = load(tmp_path / "m.onnx").model
    assert shares(source, source.clone(), set()) == Shares(1, 0)
