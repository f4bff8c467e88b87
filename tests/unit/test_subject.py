"""What the source is said to compute for values that only the canonical graph has."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from edgevit.subject import expect

HEAD = '<ir_version: 10, opset_import: ["": 23]>'


def _model(body: str, **constants: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"{HEAD} g (float[4,64] x) => (float[2,2,32] y) {body}")
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def test_a_value_behind_a_view_of_the_source_is_that_view_undone() -> None:
    """``h`` holds a folded factor: computed from the canonical graph it would round apart."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(64, 32)).astype(np.float32)
    k = rng.normal(size=32).astype(np.float32)
    shape, x = np.array([2, 2, 32]), rng.normal(size=(4, 64)).astype(np.float32)
    source = _model("{ a = MatMul(x, w) b = Mul(a, k) r = Reshape(b, s) y = Relu(r) }",
                    w=w, k=k, s=shape)  # fmt: skip
    folded = _model(
        "{ h = MatMul(x, w) t = Transpose<perm = [1,0]>(h) u = Transpose<perm = [1,0]>(t)"
        "r = Reshape(u, s) y = Relu(r) }",
        w=w * k,
        s=shape,
    )
    canonical = ir.from_proto(folded)
    found = expect(source.SerializeToString(), canonical, [{"x": x}], trace=True)
    plain = found.values["r"].reshape(4, 32)
    np.testing.assert_array_equal(found.values["h"], plain)
    np.testing.assert_array_equal(found.values["t"], plain.T)
    # The rewrite itself is still compared with the source.
    assert not np.array_equal(found.rewritten["h"], plain)
    np.testing.assert_allclose(found.rewritten["h"], plain, rtol=0, atol=64 * 2.0**-24 * 40)
