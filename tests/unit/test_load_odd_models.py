"""Odd but valid models load with everything known, or are refused by a reason that is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevit.errors import InputError
from edgevit.loading import load
from edgevit.passes.infer_shapes import open_values
from edgevit.passes.order import canonicalize
from tests.support.graphs import run_reference

Array = np.ndarray[Any, Any]
Infos = dict[str, tuple[Any, ...]]


def _write(
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: Infos,
    outputs: Infos,
    constants: dict[str, Array] | None = None,
    opset: int = 17,
) -> Path:
    def info(shapes: Infos) -> list[onnx.ValueInfoProto]:
        # A list of sizes is integer wherever a test has one.
        kinds = {
            name: TensorProto.INT64 if name == "n" else TensorProto.FLOAT for name in shapes
        }
        return [helper.make_tensor_value_info(k, kinds[k], s) for k, s in shapes.items()]

    tensors = [numpy_helper.from_array(a, k) for k, a in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", info(inputs), info(outputs), tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _check_same(path: Path, model: ir.Model) -> None:
    """The loaded model computes what the file computes, on a random input, bit for bit."""
    rng = np.random.default_rng(5)
    feeds = {
        str(v.name): rng.standard_normal(v.shape.numpy()).astype(np.float32)
        for v in model.graph.inputs
        if v.shape is not None
    }
    wanted = run_reference(ir.load(path), feeds)
    found = run_reference(model, feeds)
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


RELU = helper.make_node("Relu", ["x"], ["y"], "relu")


def test_an_output_that_is_an_input_keeps_its_shape(tmp_path: Path) -> None:
    path = _write(tmp_path, [RELU], {"x": (2, 4)}, {"y": (2, 4), "x": (2, 4)})
    model = load(path).model
    assert [str(v.shape) for v in model.graph.outputs] == ["[2,4]", "[2,4]"]
    _check_same(path, model)


@pytest.mark.parametrize("used", [False, True])
def test_an_output_that_is_a_constant_gets_a_node(tmp_path: Path, used: bool) -> None:
    w = np.arange(8, dtype=np.float32).reshape(2, 4)
    node = helper.make_node("Add", ["x", "w"], ["y"], "add") if used else RELU
    shapes: Infos = {"y": (2, 4), "w": (2, 4)}
    path = _write(tmp_path, [node], {"x": (2, 4)}, shapes, {"w": w})
    model = load(path).model
    made = model.graph.outputs[1].producer()
    assert made is not None
    assert made.op_type == "Identity"
    assert not open_values(model)
    _check_same(path, model)


@pytest.mark.parametrize(("opset", "size"), [(18, 2), (21, 4)])
def test_group_normalization_and_what_follows_has_a_shape(
    tmp_path: Path, opset: int, size: int
) -> None:
    nodes = [
        helper.make_node("GroupNormalization", ["x", "s", "s"], ["g"], "gn", num_groups=2),
        helper.make_node("Relu", ["g"], ["y"], "relu"),
    ]
    scale = np.linspace(0.5, 2, size, dtype=np.float32)
    inputs: Infos = {"x": (1, 4, 3, 5)}
    path = _write(tmp_path, nodes, inputs, {"y": (1, 4, 3, 5)}, {"s": scale}, opset)
    model = load(path).model
    assert [str(n.outputs[0].shape) for n in model.graph] == ["[1,4,3,5]"] * 2
    assert [n.op_type for n in model.graph] == ["GroupNormalization", "Relu"]


def _recurrent(folder: Path, op: str, gates: int, direction: str) -> Path:
    node = helper.make_node(op, ["x", "w", "r"], ["y"], op, hidden_size=3, direction=direction)
    rng = np.random.default_rng(1)
    constants = {
        "w": rng.standard_normal((1, 3 * gates, 4)).astype(np.float32),
        "r": rng.standard_normal((1, 3 * gates, 3)).astype(np.float32),
    }
    return _write(folder, [node], {"x": (5, 1, 4)}, {"y": (5, 1, 1, 3)}, constants)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_directions_of_recurrent_layers_are_their_own(
    tmp_path: Path, op: str, gates: int
) -> None:
    load(_recurrent(tmp_path, op, gates, "reverse"))
    with pytest.raises(InputError, match="direction is 'LEFT', expected one of forward"):
        load(_recurrent(tmp_path, op, gates, "LEFT"))


def test_a_layer_norm_with_a_broadcast_scale_gets_the_whole_one(tmp_path: Path) -> None:
    node = helper.make_node("LayerNormalization", ["x", "s"], ["y"], "ln", axis=1)
    scale = np.linspace(0.5, 2, 4, dtype=np.float32)
    path = _write(tmp_path, [node], {"x": (2, 3, 4)}, {"y": (2, 3, 4)}, {"s": scale})
    model = load(path).model
    canonicalize(model)
    (norm,) = [n for n in model.graph if n.op_type == "LayerNormalization"]
    found = norm.inputs[1]
    assert found is not None
    assert found.const_value is not None
    np.testing.assert_array_equal(found.const_value.numpy(), np.tile(scale, 3))


def _random(folder: Path, op: str, **attributes: Any) -> Path:
    inputs = [] if op in ("RandomNormal", "RandomUniform") else ["x"]
    nodes = [
        helper.make_node(op, inputs, ["r"], "noise", **attributes),
        helper.make_node("Cast", ["r"], ["f"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "f"], ["y"], "add"),
    ]
    return _write(folder, nodes, {"x": (2, 4)}, {"y": (2, 4)})


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("RandomNormal", {"shape": [2, 4]}),
        ("RandomUniform", {"shape": [2, 4]}),
        ("RandomNormalLike", {}),
        ("RandomUniformLike", {}),
        ("Bernoulli", {}),
        ("Multinomial", {"sample_size": 4}),
    ],
)
def test_random_numbers_are_refused(
    tmp_path: Path, op: str, attributes: dict[str, Any]
) -> None:
    with pytest.raises(InputError) as caught:
        load(_random(tmp_path, op, **attributes))
    assert f"node 'noise' ({op}): its result is random" in caught.value.message


def _dropout(folder: Path, training: bool, ratio: float | None) -> Path:
    node = helper.make_node("Dropout", ["x", "" if ratio is None else "r", "t"], ["d"], "drop")
    constants: dict[str, Array] = {"t": np.array(training)}
    if ratio is not None:
        constants["r"] = np.array(ratio, np.float32)
    nodes = [node, helper.make_node("Relu", ["d"], ["y"], "relu")]
    return _write(folder, nodes, {"x": (2, 4)}, {"y": (2, 4)}, constants)


@pytest.mark.parametrize("ratio", [0.3, None])
def test_dropout_in_training_mode_is_refused(tmp_path: Path, ratio: float | None) -> None:
    with pytest.raises(InputError, match=r"\(Dropout\): its result is random"):
        load(_dropout(tmp_path, True, ratio))


@pytest.mark.parametrize(("training", "ratio"), [(False, 0.3), (False, None), (True, 0.0)])
def test_dropout_that_drops_nothing_disappears(
    tmp_path: Path, training: bool, ratio: float | None
) -> None:
    model = load(_dropout(tmp_path, training, ratio)).model
    canonicalize(model)
    assert [n.op_type for n in model.graph] == ["Relu"]


def _outer_product(folder: Path, rows: tuple[int, ...]) -> Path:
    """Positions times frequencies, written as exporters do; ``rows`` is the last target."""
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["positions", "one"], ["column"]),
        node("Cast", ["column"], ["numbers"], to=TensorProto.FLOAT),
        node("Pow", ["base", "exponents"], ["frequencies"]),
        node("Unsqueeze", ["frequencies", "zero"], ["row"]),
        node("Mul", ["numbers", "row"], ["angles"]),
        node("Reshape", ["angles", "target"], ["table"]),
        node("Add", ["x", "table"], ["y"]),
    ]
    constants = {
        "positions": np.arange(12),
        "one": np.array([1]),
        "zero": np.array([0]),
        "base": np.array(10000.0, np.float32),
        "exponents": -np.linspace(0, 1, 4, dtype=np.float32),
        "target": np.array(rows),
    }
    return _write(folder, nodes, {"x": (12, 4)}, {"y": (12, 4)}, constants)


def test_a_column_times_a_row_is_no_contradiction(tmp_path: Path) -> None:
    path = _outer_product(tmp_path, (12, 4))
    model = load(path).model
    _check_same(path, model)
    canonicalize(model)
    assert not open_values(model)
    assert [n.op_type for n in model.graph] == ["Add"]
    _check_same(path, model)


def test_a_true_contradiction_beside_one_is_still_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contradicts itself"):
        load(_outer_product(tmp_path, (12, 5)))


def test_a_split_with_a_part_that_nothing_reads_settles(tmp_path: Path) -> None:
    split = helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1)
    nodes = [split, helper.make_node("Tanh", ["b"], ["y"])]
    path = _write(
        tmp_path, nodes, {"x": (1, 5, 4)}, {"y": (1, 4, 4)}, {"sizes": np.array([1, 4])}
    )
    model = load(path).model
    canonicalize(model)
    assert [n.op_type for n in model.graph] == ["Slice", "Tanh"]
    _check_same(path, model)
