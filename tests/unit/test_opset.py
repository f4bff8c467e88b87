"""Raising the operator set: complete against ONNX's own history, and the same function."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevit.errors import InputError
from edgevit.loading import load
from edgevit.opset import ADAPTED
from edgevit.schemas import OPSET, OPSET_MIN

Array = np.ndarray[Any, Any]

# Changes of form between 11 and 23 that leave an old node's meaning alone, and why.
HARMLESS = {
    # A new attribute or trailing input whose default is what the old version did.
    "attribute added": {
        ("ArgMax", 12),
        ("ArgMin", 12),
        ("AveragePool", 19),
        ("Cast", 19),
        ("CastLike", 19),
        ("Constant", 12),
        ("DequantizeLinear", 13),
        ("DequantizeLinear", 21),
        ("DequantizeLinear", 23),
        ("GRU", 14),
        ("GatherND", 12),
        ("LSTM", 14),
        ("LpPool", 18),
        ("Pad", 18),
        ("QuantizeLinear", 13),
        ("QuantizeLinear", 19),
        ("QuantizeLinear", 21),
        ("QuantizeLinear", 23),
        ("RNN", 14),
        ("Reshape", 14),
        ("Resize", 18),
        ("ScatterElements", 16),
        ("ScatterND", 16),
        ("Shape", 15),
    },
    # A required input became optional.
    "input relaxed": {("OptionalHasElement", 18)},
}


def _form(schema: Any) -> tuple[object, ...]:
    """What a node must look like: everything but data types and documentation."""
    return (
        [(i.option, i.min_arity) for i in schema.inputs],
        [o.option for o in schema.outputs],
        {
            name: (a.type, a.required, a.default_value.SerializeToString())
            for name, a in schema.attributes.items()
        },
    )


def test_every_change_of_form_is_adapted_or_known_to_be_harmless() -> None:
    history: dict[str, dict[int, Any]] = defaultdict(dict)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            history[schema.name][schema.since_version] = schema
    changed = set()
    for name, versions in history.items():
        order = sorted(versions)
        for before, after in itertools.pairwise(order):
            in_range = OPSET_MIN < after <= OPSET
            if in_range and _form(versions[before]) != _form(versions[after]):
                changed.add((name, after))
    harmless = set.union(*HARMLESS.values())
    assert changed - harmless - ADAPTED == set()
    assert harmless <= changed
    # The rest of ADAPTED are refusals of removed modes and changed defaults.
    assert (
        ADAPTED - changed == {("GroupNormalization", 21)} - changed | {("Split", 18)} - changed
    )


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def one_node(
    opset: int,
    op: str,
    shape: list[int],
    constants: list[Array],
    outputs: int = 1,
    **attributes: Any,
) -> onnx.ModelProto:
    names = [f"k{i}" for i in range(len(constants))]
    outs = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, ["x", *names], outs, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outs],
        [numpy_helper.from_array(c, n) for c, n in zip(constants, names, strict=True)],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )


RAMP = np.linspace(0.5, 2.0, 6, dtype=np.float32)

CASES = [
    ("softmax 11, last axis", one_node(11, "Softmax", [2, 3, 4], [], axis=2)),
    ("softmax 11, negative axis", one_node(11, "Softmax", [2, 3, 4], [], axis=-1)),
    ("softmax 11, ones behind", one_node(11, "Softmax", [2, 5, 1, 1], [])),
    ("softmax 11, several axes", one_node(11, "Softmax", [2, 3, 4], [])),
    ("softmax 12, all axes", one_node(12, "Softmax", [2, 3, 4], [], axis=0)),
    ("log softmax 11, several", one_node(11, "LogSoftmax", [2, 3, 4, 5], [], axis=-2)),
    ("hardmax 11, several", one_node(11, "Hardmax", [2, 3, 4], [])),
    ("softmax 12, ones before", one_node(12, "LogSoftmax", [2, 1, 1, 5], [], axis=2)),
    ("softmax 13", one_node(13, "Softmax", [2, 3, 4], [], axis=1)),
    ("squeeze 11", one_node(11, "Squeeze", [2, 1, 4, 1], [], axes=[1, -1])),
    ("squeeze 11, all", one_node(11, "Squeeze", [2, 1, 4, 1], [])),
    ("unsqueeze 12", one_node(12, "Unsqueeze", [2, 4], [], axes=[0, 3])),
    ("split 11", one_node(11, "Split", [2, 6], [], 2, axis=1, split=[2, 4])),
    ("split 11, equal", one_node(11, "Split", [2, 6], [], 3, axis=1)),
    ("split 13, equal", one_node(13, "Split", [2, 6], [], 3, axis=-1)),
    ("sum 11", one_node(11, "ReduceSum", [2, 3, 4], [], axes=[1], keepdims=0)),
    ("mean 11", one_node(11, "ReduceMean", [2, 3, 4], [], axes=[-1])),
    ("mean 17, all", one_node(17, "ReduceMean", [2, 3, 4], [])),
    ("max 13", one_node(13, "ReduceMax", [2, 3, 4], [], axes=[0, 2])),
    ("l2 17", one_node(17, "ReduceL2", [2, 3, 4], [], axes=[1])),
    ("dropout 11", one_node(11, "Dropout", [2, 3], [], ratio=0.3)),
    (
        "batch norm 11",
        one_node(11, "BatchNormalization", [2, 6, 3], [RAMP, RAMP, RAMP, RAMP]),
    ),
    (
        "pad 11",
        one_node(11, "Pad", [2, 3], [np.array([0, 1, 0, 2]), np.array(0.5, np.float32)]),
    ),
    ("clip 11", one_node(11, "Clip", [2, 3], [np.array(-0.1, np.float32)])),
    (
        "resize 11",
        one_node(
            11,
            "Resize",
            [1, 2, 4, 4],
            [np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32)],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
    ),
    (
        "grid sample 16",
        one_node(
            16,
            "GridSample",
            [1, 2, 4, 4],
            [np.linspace(-1, 1, 18, dtype=np.float32).reshape(1, 3, 3, 2)],
            mode="bicubic",
        ),
    ),
    ("hard sigmoid 11", one_node(11, "HardSigmoid", [2, 3], [], alpha=0.3)),
    ("max pool 11", one_node(11, "MaxPool", [1, 2, 5, 5], [], kernel_shape=[2, 2])),
    ("newest: gelu 28", one_node(28, "Gelu", [2, 3], [])),
    ("newest: softmax 26", one_node(26, "Softmax", [2, 3], [])),
]


@pytest.mark.parametrize(("name", "model"), CASES, ids=[name for name, _ in CASES])
def test_same_function_bit_for_bit(tmp_path: Path, name: str, model: onnx.ModelProto) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    raised = ir.to_proto(load(path).model)
    assert [o.version for o in raised.opset_import] == [OPSET]
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(3)
    feeds = {"x": rng.standard_normal(dims).astype(np.float32)}
    if model.opset_import[0].version > OPSET:
        model.opset_import[0].version = OPSET  # the runtime does not know the newest yet
        model.ir_version = 11
    for expected, found in zip(run(model, feeds), run(raised, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_roi_align_keeps_the_old_default(tmp_path: Path) -> None:
    constants = [np.array([[0.5, 1, 5, 6]], np.float32), np.array([0])]
    path = tmp_path / "m.onnx"
    path.write_bytes(one_node(11, "RoiAlign", [1, 2, 8, 8], constants).SerializeToString())
    (node,) = load(path).model.graph
    found = node.attributes.get_string("coordinate_transformation_mode")
    assert found == "output_half_pixel"


def test_group_norm_18_repeats_its_parameters(tmp_path: Path) -> None:
    """Oracle: the formula of the operator's documentation, per-group scale and bias."""
    scale, bias = np.array([2.0, 3.0], np.float32), np.array([0.5, -1.0], np.float32)
    model = one_node(18, "GroupNormalization", [2, 4, 3], [scale, bias], num_groups=2)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    x = np.random.default_rng(5).standard_normal((2, 4, 3)).astype(np.float32)
    groups = x.astype(np.float64).reshape(2, 2, -1)
    mean, var = groups.mean(-1, keepdims=True), groups.var(-1, keepdims=True)
    normal = (groups - mean) / np.sqrt(var + 1e-5)
    expected = (normal * scale[:, None] + bias[:, None]).reshape(x.shape)
    (found,) = run(ir.to_proto(load(path).model), {"x": x})
    # Sums of six float32 numbers of size one: a few rounding errors of 2^-24 each.
    np.testing.assert_allclose(found, expected, rtol=0, atol=32 * 2.0**-24)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            one_node(
                11,
                "Resize",
                [1, 1, 2, 2],
                [np.zeros(0, np.float32), np.ones(4, np.float32)],
                coordinate_transformation_mode="tf_half_pixel_for_nn",
            ),
            "removed in opset 13",
        ),
        (one_node(24, "Swish", [2, 3], []), "needs operator set 24"),
        (
            one_node(27, "SpaceToDepth", [1, 1, 4, 4], [], blocksize=2, mode="CRD"),
            "unknown attribute 'mode'",
        ),
        (
            one_node(28, "SpaceToDepth", [1, 1, 4, 4], [], blocksize=2, mode="CRD"),
            "attribute 'mode' does not exist in operator set 23",
        ),
    ],
    ids=["resize", "new operator", "attribute too early", "new attribute"],
)
def test_refused(tmp_path: Path, model: onnx.ModelProto, says: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError) as caught:
        load(path)
    assert says in caught.value.message
    assert "node '" in caught.value.message
