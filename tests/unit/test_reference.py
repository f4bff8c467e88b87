"""The reference runs apart: what goes wrong there is a message here."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgevit import reference
from edgevit.errors import InputError
from edgevit.reference import run_reference
from tests.support.graphs import GraphBuilder


def _two_steps() -> bytes:
    """Two nodes: a = 2 x; y = a + x."""
    g = GraphBuilder()
    x = g.input("x", (2, 3))
    a = g.op("Mul", x, g.const([2.0]), out="a/strange name:0")
    return bytes(g.proto([g.op("Add", a, x, out="y")]).SerializeToString())


def _feeds(count: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((2, 3)).astype(np.float32)} for _ in range(count)]


def test_outputs_and_traces_are_what_the_model_computes() -> None:
    import onnxruntime

    feeds = _feeds(3)
    found = run_reference(_two_steps(), feeds, trace=1)
    assert found.version == onnxruntime.__version__
    assert [list(o) for o in found.outputs] == [["y"]] * 3
    for fed, out in zip(feeds, found.outputs, strict=True):
        # One product with a power of two and one rounded sum: exact in float32.
        np.testing.assert_array_equal(out["y"], 2 * fed["x"] + fed["x"])
    assert len(found.traces) == 1
    assert set(found.traces[0]) == {"y", "a/strange name:0"}
    np.testing.assert_array_equal(found.traces[0]["a/strange name:0"], 2 * feeds[0]["x"])
    assert not np.array_equal(found.outputs[0]["y"], found.outputs[1]["y"])


def test_a_file_is_what_its_bytes_are(tmp_path: Path) -> None:
    path = tmp_path / "a name.onnx"
    path.write_bytes(_two_steps())
    by_path, by_bytes = (run_reference(m, _feeds(1), trace=1) for m in (path, _two_steps()))
    for one, other in zip(
        (by_path.outputs[0], by_path.traces[0]),
        (by_bytes.outputs[0], by_bytes.traces[0]),
        strict=True,
    ):
        assert {n: a.tobytes() for n, a in one.items()} == {
            n: a.tobytes() for n, a in other.items()
        }


def test_scalars_and_other_dtypes_come_back() -> None:
    g = GraphBuilder()
    x = g.input("x", (4,))
    total = g.op("ReduceSum", x, keepdims=0, out="total")
    best = g.op("ArgMax", x, axis=0, keepdims=0, out="best")
    model = g.proto([total, best]).SerializeToString()
    (out,) = run_reference(model, [{"x": np.array([1, 5, 2, 0], np.float32)}]).outputs
    assert out["total"].shape == ()
    assert out["total"] == 8
    assert out["best"].dtype == np.int64
    assert out["best"] == 1


def test_graph_optimizations_are_off() -> None:
    """(x * 1e30) * 1e30 overflows as written; a fused x * 1e60 or a reordering need not."""
    g = GraphBuilder()
    a = g.op("Mul", g.input("x", (1,)), g.const([1e30]))
    b = g.op("Mul", a, g.const([1e30]))
    y = g.op("Mul", b, g.const([1e-30]), out="y")
    model = g.proto([y]).SerializeToString()
    (out,) = run_reference(model, [{"x": np.ones(1, np.float32)}]).outputs
    assert np.isinf(out["y"]).all()


@pytest.mark.parametrize("model", [b"", b"not a model", _two_steps()[:-30]])
def test_a_model_that_is_none_is_an_input_error(model: bytes) -> None:
    with pytest.raises(InputError, match="ONNX Runtime cannot run the source model") as caught:
        run_reference(model, _feeds(1))
    assert "Traceback" not in caught.value.message


def test_an_unknown_operator_is_an_input_error() -> None:
    proto = onnx.load_model_from_string(_two_steps())
    proto.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(InputError, match="NoSuchOperator"):
        run_reference(proto.SerializeToString(), _feeds(1))


def test_feeds_that_do_not_fit_are_an_input_error() -> None:
    with pytest.raises(InputError, match="cannot run the source model"):
        run_reference(_two_steps(), [{"x": np.zeros((2, 4), np.float32)}])


def test_a_crash_of_the_library_is_an_error_and_not_our_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], -signal.SIGSEGV, "", "")

    monkeypatch.setattr(subprocess, "run", crash)
    with pytest.raises(InputError, match=r"ended with status -11"):
        run_reference(_two_steps(), _feeds(1))


def test_a_hang_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "TIMEOUT_S", 0.001)
    with pytest.raises(InputError, match=r"did not finish within 0\.001 s on 2 samples"):
        run_reference(_two_steps(), _feeds(2))


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_reference(_two_steps(), _feeds(1))
    with pytest.raises(InputError):
        run_reference(b"", _feeds(1))
    assert list(tmp_path.iterdir()) == []


def test_the_vendor_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's telemetry opens a session file in the temporary directory."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    run_reference(_two_steps(), _feeds(1))
    assert list(tmp_path.iterdir()) == []
