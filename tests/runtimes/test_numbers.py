"""Numbers at the edges: NaN and infinity in what ``run`` says, inputs past float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import edgevit
from edgevit.errors import InputError
from edgevit.runtimes.cli import run_bundle


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]>g (float[4] x) => (float[4] y) { y = Log(x) }'
    )
    onnx.save(model, tmp_path / "log.onnx")
    out = tmp_path / "log.edgevit"
    edgevit.compile(tmp_path / "log.onnx", target="onnx", output=out, verify=False)
    np.save(tmp_path / "x.npy", np.array([1, 0, np.inf, -1], np.float32))
    found, text = run_bundle(out, [tmp_path / "x.npy"], None, threads=1, trust=False)
    assert found["outputs"][0]["values"] == [0.0, None, None, None]
    assert text.splitlines()[-1].split() == ["first", "values:", "0", "-inf", "inf", "nan"]


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_an_input_beyond_float16_is_refused_where_it_would_be_infinite(
    precision: str, tmp_path: Path
) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]>'
        "g (float[3] x) => (float[3] y) <float c = {0.001}> { y = Mul(x, c) }"
    )
    onnx.save(model, tmp_path / "m.onnx")
    out = tmp_path / "m.edgevit"
    edgevit.compile(
        tmp_path / "m.onnx", target="iphone-npu", precision=precision, output=out, verify=False
    )
    with edgevit.load(out) as session:
        fits = session.run({"x": np.array([65504, -np.inf, 0], np.float32)})["y"]
        assert np.isfinite(fits[[0, 2]]).all()
        large = {"x": np.array([70000, 1, 1], np.float32)}
        if precision == "fp32":
            np.testing.assert_allclose(session.run(large)["y"], [70, 0.001, 0.001], rtol=1e-6)
        else:
            with pytest.raises(InputError, match=r"value 70000[.]0 does not fit float16"):
                session.run(large)


def test_the_error_function_ends_at_one(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]>'
        "g (float[2,3] x) => (float[2,3] y) { y = Erf(x) }"
    )
    onnx.save(model, tmp_path / "m.onnx")
    out = tmp_path / "m.edgevit"
    edgevit.compile(tmp_path / "m.onnx", target="linux-x86", output=out, verify=False)
    x = np.array([[np.inf, -np.inf, 3e38], [-3e38, 0, np.nan]], np.float32)
    with edgevit.load(out) as session:
        found = session.run({"x": x})["y"]
    np.testing.assert_array_equal(found, [[1, -1, 1], [-1, 0, np.nan]])
