"""The file itself: identifier, alignment, signature, names, determinism, precision."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgevit.backend import Lowered, LowerOptions
from edgevit.errors import UsageError
from edgevit.target import load_target
from edgevit.targets.litert.lower import LiteRTBackend
from edgevit.targets.litert.writer import Writer
from tests.support.graphs import GraphBuilder, feeds_for, run_reference
from tests.support.tflite import lower, run_all
from tests.targets.litert.case import small_model
from tests.targets.litert.test_operators import distance


def _unpacked(lowered: Lowered) -> Any:
    (data,) = lowered.files.values()
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def test_identifier_version_and_metadata() -> None:
    lowered = lower(small_model())
    (data,) = lowered.files.values()
    model = _unpacked(lowered)
    assert data[4:8] == b"TFL3"
    assert model.version == 3
    (metadata,) = model.metadata
    assert metadata.name == b"min_runtime_version"
    assert bytes(model.buffers[metadata.buffer].data) == b"2.14.0"


def test_an_interpolation_matrix_is_stored_once() -> None:
    g = GraphBuilder()
    size = g.const([1, 3, 20, 28], dtype=np.int64)
    mode = {"mode": "cubic", "coordinate_transformation_mode": "half_pixel"}
    resized = g.op("Resize", g.input("x", (1, 3, 12, 16)), "", "", size, **mode)
    model = _unpacked(lower(g.model(resized)))
    stored = [b.data.size for b in model.buffers if b.data is not None]
    assert sorted(stored)[-2:] == [4 * 20 * 12, 4 * 28 * 16]


def test_buffers_are_aligned() -> None:
    (data,) = lower(small_model()).files.values()
    model = schema.Model.GetRootAs(data, 0)
    base = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    offsets = [
        model.Buffers(i).DataAsNumpy().__array_interface__["data"][0] - base
        for i in range(model.BuffersLength())
        if model.Buffers(i).DataLength() > 0
    ]
    assert len(offsets) > 3
    assert all(offset % 16 == 0 for offset in offsets)


def test_boundary_has_the_source_names_and_layout() -> None:
    lowered = lower(small_model())
    (signature,) = _unpacked(lowered).signatureDefs
    assert signature.signatureKey == b"serving_default"
    assert [m.name for m in signature.inputs] == [b"image"]
    assert [m.name for m in signature.outputs] == [b"features", b"logits"]
    bindings = (*lowered.part.inputs, *lowered.part.outputs)
    assert [b.artifact for b in bindings] == ["image", "features", "logits"]
    assert all(b.perm is None and b.artifact_shape == b.shape for b in bindings)


def test_equal_constants_share_a_buffer() -> None:
    writer = Writer()
    one = writer.constant("a", np.zeros((2, 3), np.float32))
    assert writer.constant("b", np.zeros((2, 3), np.float32)) == one
    other = writer.constant("c", np.zeros((3, 2), np.float32))
    assert other != one
    assert writer.tensors[other].buffer == writer.tensors[one].buffer
    integers = writer.constant("d", np.zeros((2, 3), np.int32))
    assert writer.tensors[integers].buffer != writer.tensors[one].buffer


def test_tensor_names_are_unique() -> None:
    writer = Writer()
    names = [writer.name(writer.tensor(n, (1,), "float32")) for n in ("t", "t", "t.1", "t")]
    assert len(set(names)) == 4


_SCRIPT = """
import hashlib
from tests.targets.litert.case import small_model
from tests.support.tflite import lower
print(hashlib.sha256(lower(small_model()).files["m.tflite"]).hexdigest())
"""


def test_two_processes_write_the_same_bytes() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed},
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    digests.add(hashlib.sha256(lower(small_model()).files["m.tflite"]).hexdigest())
    assert len(digests) == 1


def test_half_precision_halves_the_weights_and_stays_close() -> None:
    model = small_model()
    feeds = feeds_for(model)
    reference = run_reference(model, feeds)
    single, half = lower(model), lower(model, precision="fp16")
    sizes = [sum(len(f) for f in low.files.values()) for low in (single, half)]
    weights = 4 * (4 * 27 + 64 * 5)
    assert sizes[0] - sizes[1] > weights / 2 - 700  # two more tensors and operators
    result = run_all([(half, feeds)])[0]
    errors = [distance(result.outputs[name], reference[name]) for name in reference]
    # Weights carry a relative error of 2^-11, so sums of them about that, and not less.
    assert 2.0**-16 < max(errors) < 2.0**-9


def test_an_output_that_is_an_input_or_a_view_gets_its_own_tensor() -> None:
    g = GraphBuilder()
    x = g.input("x", (2, 6))
    y = g.op("Relu", x, out="y")
    g.op("Reshape", y, g.ints([3, 4]), out="z")
    g.op("Reshape", x, g.ints([12]), out="w")
    model = g.model("y", "z", "w")
    feeds = feeds_for(model)
    lowered = lower(model)
    result = run_all([(lowered, feeds)])[0]
    assert [b.artifact for b in lowered.part.outputs] == ["y", "z", "w"]
    for name, expected in run_reference(model, feeds).items():
        assert distance(result.outputs[name], expected) == 0


def _node(build: Any) -> ir.Node:
    g = GraphBuilder()
    return list(g.model(build(g)).graph)[-1]


def _resize(g: GraphBuilder) -> str:
    x = g.input("x", (1, 2, 4, 4))
    return g.op("Resize", x, "", g.const([1, 2, 2, 2]), mode="nearest")


def _scatter(g: GraphBuilder) -> str:
    indices = g.const([[0], [0]], dtype=np.int64)
    return g.op("ScatterND", g.input("x", (3, 4)), indices, g.input("u", (2, 4)))


def _double(g: GraphBuilder) -> str:
    return g.op("Relu", g.input("x", (2,), np.float64))


def _kernel(g: GraphBuilder) -> str:
    x, w = g.input("x", (1, 2, 4, 4)), g.input("w", (2, 2, 1, 1))
    return g.op("Conv", x, w, kernel_shape=[1, 1], strides=[1, 1], pads=[0] * 4,
                dilations=[1, 1], group=1)  # fmt: skip


def _unknown(g: GraphBuilder) -> str:
    return g.op("Det", g.input("x", (2, 3, 3)))


def _last_of_equals(g: GraphBuilder) -> str:
    return g.op("ArgMax", g.input("x", (2, 3)), axis=1, keepdims=0, select_last_index=1)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (_resize, "only height and width"),
        (_scatter, "same place"),
        (_double, "float64"),
        (_kernel, "the weight must be constant"),
        (_unknown, "operator Det has no lowering"),
        (_last_of_equals, "select_last_index"),
    ],
)
def test_what_cannot_be_lowered_says_why(build: Any, reason: str) -> None:
    found = LiteRTBackend().unsupported(_node(build), load_target("linux-x86"), "fp32")
    assert found is not None
    assert reason in found


def test_unknown_precision_is_a_usage_error() -> None:
    options = LowerOptions("w3", "source", "m")
    with pytest.raises(UsageError, match="w3"):
        LiteRTBackend().lower(small_model(), load_target("linux-x86"), options)


def test_probing_loads_no_schema() -> None:
    code = (
        "import sys; from edgevit.targets.litert.lower import LiteRTBackend;"
        "assert LiteRTBackend().probe().ok;"
        "assert not {'ai_edge_litert', 'onnx', 'onnx_ir'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
