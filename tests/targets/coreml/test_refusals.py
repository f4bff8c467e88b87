"""What cannot be lowered is refused with the reason, before anything is built."""

from __future__ import annotations

import numpy as np
import pytest

from edgevit.errors import InternalError, UnsupportedModelError, UsageError
from edgevit.targets.coreml.lower import CoreMLBackend
from tests.targets.coreml.harness import Array, Case, f32, ints, lower, target

BIG = f32([1e6, -1e6, 1, 2])


def _case(graph: str, **constants: Array) -> Case:
    return Case("refused", graph, (), constants)


REFUSED = [
    (
        _case("(float[2,3,4] x) => (float[2,3,4] y) { y = Celu(x) }"),
        "operator Celu has no Core ML lowering",
    ),
    (
        _case(
            "(float[4,6] x) => (float[1,2,2,1,3,2] y) { y = Reshape(x, s) }",
            s=ints(1, 2, 2, 1, 3, 2),
        ),
        "rank 6, the device takes 5",
    ),
    (
        _case("(double[4] x) => (double[4] y) { y = Relu(x) }"),
        "float64, which ML programs do not have",
    ),
    (
        _case("(int64[4] x) => (int64[4] y) { y = Add(x, c) }", c=ints(1, 2, 3, 2**40)),
        "does not fit into int32",
    ),
    (
        _case(
            "(float[1,2,4,4] x, float[3,2,1,1] w) => (float[1,3,4,4] y) { y = Conv<"
            "kernel_shape = [1,1], strides = [1,1], pads = [0,0,0,0], dilations = [1,1],"
            "group = 1>(x, w) }"
        ),
        "the weight is not constant",
    ),
    (
        _case(
            '(float[2,3,4,4] x) => (float[4,3,4,4] y) { y = Pad<mode = "reflect">(x, p) }',
            p=ints(1, 0, 0, 0, 1, 0, 0, 0),
        ),
        "pads the last two axes only",
    ),
    (
        _case("(int64[4] x) => (uint8[4] y) { y = Cast<to = 2>(x) }"),
        "wraps around",
    ),
    (
        _case(
            "(int64[4] x) => (int64[1] y) { y = ReduceMean<keepdims = 1>(x, a) }", a=ints(0)
        ),
        "rounds differently",
    ),
    (
        _case(
            '(float[1,2,8,8] x) => (float[1,2,4,4] y) { y = Resize<mode = "linear",'
            "antialias = 1>(x, r, s, z) }",
            r=np.zeros(0, np.float32),
            s=np.zeros(0, np.float32),
            z=ints(1, 2, 4, 4),
        ),
        "antialias=1 when shrinking",
    ),
    (
        _case(
            "(float[2,4] x) => (int64[2] y)"
            "{ y = ArgMax<axis = 1, keepdims = 0, select_last_index = 1>(x) }"
        ),
        "select_last_index=1",
    ),
    (
        _case(
            "(float[4] x) => (int16[4] y) { y = QuantizeLinear(x, s, z) }",
            s=f32(1),
            z=np.asarray(0, np.int16),
        ),
        "int8 or uint8, not int16",
    ),
    (
        _case(
            "(float[4] x) => (int8[4] y) { y = QuantizeLinear(x, s, z) }",
            s=f32(1),
            z=np.asarray(0, np.int8),
        ),
        "read by something else than DequantizeLinear",
    ),
    (
        _case(
            "(int8[4] x) => (float[4] y) { y = DequantizeLinear(x, s) }",
            s=f32(1),
        ),
        "comes from something else than QuantizeLinear",
    ),
    (
        _case(
            "(uint8[1,2,4,4] x) => (uint8[1,2,4,4] y) { y = MaxPool<kernel_shape = [1,1],"
            "strides = [1,1], pads = [0,0,0,0]>(x) }",
        ),
        "a pool of uint8",
    ),
    (
        _case(
            "(float[1,2,5,4] q, float[1,2,6,4] k, float[1,2,6,3] v) =>"
            "(float[1,2,5,3] y, float[1,2,6,4] a, float[1,2,6,3] b)"
            "{ y, a, b = Attention<scale = 0.5>(q, k, v) }"
        ),
        "only the first output of Attention",
    ),
    (
        _case(
            "(float[1,2,4,4] x) => (float[1,2,4,4] y){ y = MaxPool<kernel_shape = [1,1]>(x) }",
        ),
        "attribute strides is not explicit",
    ),
]


@pytest.mark.parametrize(("case", "reason"), REFUSED)
def test_refused_with_the_reason(case: Case, reason: str) -> None:
    model = Case("g", case.graph, (), case.constants).model()
    backend = CoreMLBackend()
    reasons = [backend.unsupported(node, target(), "fp32") for node in model.graph]
    assert any(found is not None and reason in found for found in reasons), reasons
    with pytest.raises(UnsupportedModelError, match="cannot run on iphone-npu"):
        lower(model, "fp32")


def test_a_constant_past_float16_is_refused_in_fp16_only() -> None:
    model = _case("(float[4] x) => (float[4] y) { y = Mul(x, c) }", c=BIG).model()
    node = next(iter(model.graph))
    assert CoreMLBackend().unsupported(node, target(), "fp32") is None
    found = CoreMLBackend().unsupported(node, target(), "fp16")
    assert found == "constant 'c' reaches 1e+06, past float16; use fp32"


def test_a_constant_past_float16_saturates_where_that_is_exact() -> None:
    model = _case("(float[4] x) => (float[4] y) { y = Min(x, c) }", c=BIG).model()
    node = next(iter(model.graph))
    assert CoreMLBackend().unsupported(node, target(), "fp16") is None


def test_unknown_precision() -> None:
    model = _case("(float[4] x) => (float[4] y) { y = Relu(x) }").model()
    with pytest.raises(UsageError, match="precision 'w8a16'"):
        lower(model, "w8a16")


def test_unknown_operating_system() -> None:
    model = _case("(float[4] x) => (float[4] y) { y = Relu(x) }").model()
    other = target().model_copy(update={"options": {"os": "3"}})
    from edgevit.backend import LowerOptions

    with pytest.raises(UsageError, match="os='3'"):
        CoreMLBackend().lower(model, other, LowerOptions("fp32", "source", "m"))


def test_a_scale_too_small_for_float16_is_refused_in_fp16_only() -> None:
    graph = "(float[4] x) => (float[4] y)"
    graph += "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
    model = _case(graph, s=f32(1e-5), z=np.asarray(0, np.int8)).model()
    node = next(iter(model.graph))
    assert CoreMLBackend().unsupported(node, target(), "fp32") is None
    found = CoreMLBackend().unsupported(node, target(), "fp16")
    assert found == "a scale of 1e-05 has too few bits in float16; use fp32"


def test_what_only_the_builder_notices_names_the_node() -> None:
    model = _case("(int64[4] x) => (int64[4] y) { y = Relu(x) }").model()
    with pytest.raises(InternalError, match=r"Relu.*MIL builder refuses it"):
        lower(model, "fp32")


def test_an_addend_past_float16_must_be_a_mask() -> None:
    graph = "(float[4] x) => (float[4] y) { y = Add(x, c) }"
    mask, offset = (_case(graph, c=f32([0, sign * 1e6, 0, 0])).model() for sign in (-1, 1))
    backend = CoreMLBackend()
    found = [backend.unsupported(m.graph.node(0), target(), "fp16") for m in (mask, offset)]
    assert found == [None, "constant 'c' reaches 1e+06, past float16; use fp32"]
