from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit.bundle import Entry, Part
from edgevit.errors import (
    ArtifactError,
    Availability,
    BackendMissingError,
    InputError,
    UsageError,
)
from edgevit.runtimes import ort as engine_file
from edgevit.runtimes.child import run_isolated
from edgevit.runtimes.ort import OrtEngine, OrtExecutor
from tests.support.bundles import same


def linear(path: Path) -> tuple[Entry, np.ndarray[Any, Any]]:
    """``y = relu(x @ w)`` as an ONNX file; the entry that runs it, and ``w``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    w = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x@artifact", "w"], ["h"]),
            helper.make_node("Relu", ["h"], ["y@artifact"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x@artifact", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y@artifact", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    onnx.save(model, path)
    part = Part("ort", path.name, (same("x", (2, 3)),), (same("y", (2, 4)),))
    return Entry.of_part(part), w


def test_it_computes_what_numpy_computes(tmp_path: Path) -> None:
    entry, w = linear(tmp_path / "model.onnx")
    x = np.random.default_rng(5).standard_normal((2, 3)).astype(np.float32)
    found = run_isolated(tmp_path, entry, [{"x": x}], threads=1, timeout_s=120)[0]["y"]
    expected = np.maximum(x.astype(np.float64) @ w.astype(np.float64), 0)
    # Three products and two sums of float32, each rounded: (K + 1) u |x| @ |w|.
    limit = 4 * 2.0**-24 * (np.abs(x).astype(np.float64) @ np.abs(w))
    assert np.all(np.abs(found - expected) <= limit)
    assert not np.all(np.abs(found - expected * 1.01) <= limit)  # the limit can fail


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a" * 50])
def test_a_damaged_file_is_an_artifact_error(tmp_path: Path, content: bytes) -> None:
    entry, _ = linear(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match="ONNX Runtime refuses"):
        run_isolated(tmp_path, entry, [], timeout_s=120)


def test_a_missing_file_is_an_artifact_error(tmp_path: Path) -> None:
    entry, _ = linear(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match="ONNX Runtime refuses"):
        run_isolated(tmp_path, entry, [], timeout_s=120)


def fake(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Stands in for onnxruntime and remembers what it is asked."""
    seen = types.SimpleNamespace(options=None, providers=None)

    def session(path: str, options: Any, providers: list[str]) -> Any:
        seen.options, seen.providers = options, providers
        return types.SimpleNamespace(get_outputs=list, run=None)

    class Options(types.SimpleNamespace):
        def add_session_config_entry(self, key: str, value: str) -> None:
            self.__dict__.setdefault("entries", {})[key] = value

    levels = dict.fromkeys(
        ("ORT_ENABLE_ALL", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_BASIC", "ORT_DISABLE_ALL")
    )
    module = types.SimpleNamespace(
        SessionOptions=Options,
        InferenceSession=session,
        GraphOptimizationLevel=types.SimpleNamespace(**{k: k for k in levels}),
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    return seen


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("all", "ORT_ENABLE_ALL"),
        ("extended", "ORT_ENABLE_EXTENDED"),
        ("basic", "ORT_ENABLE_BASIC"),
        ("off", "ORT_DISABLE_ALL"),
    ],
)
def test_threads_and_optimization_reach_the_engine(
    monkeypatch: pytest.MonkeyPatch, level: Any, expected: str
) -> None:
    seen = fake(monkeypatch)
    OrtEngine(level).open(Path("m.onnx"), Part("ort", "m.onnx", (), ()), threads=3).close()
    assert seen.options.graph_optimization_level == expected
    assert seen.options.intra_op_num_threads == 3
    # Else 4-bit and 8-bit weights make the engine quantize activations too.
    assert seen.options.entries == {"session.qdq_matmulnbits_accuracy_level": "1"}
    assert seen.providers == ["CPUExecutionProvider"]


def test_the_engines_own_default_of_threads_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = fake(monkeypatch)
    OrtEngine().open(Path("m.onnx"), Part("ort", "m.onnx", (), ()), threads=None)
    assert not hasattr(seen.options, "intra_op_num_threads")
    assert seen.options.graph_optimization_level == "ORT_ENABLE_ALL"


def test_an_unknown_level_is_bad_usage() -> None:
    with pytest.raises(UsageError, match="'fastest'"):
        OrtEngine("fastest")  # type: ignore[arg-type]


class InvalidArgument(Exception):  # noqa: N818  (the name that ONNX Runtime uses)
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [(InvalidArgument("rank 2"), InputError), (RuntimeError("no kernel"), ArtifactError)],
)
def test_refused_inputs_and_failing_operators_are_told_apart(
    error: Exception, kind: type[Exception]
) -> None:
    def run(names: list[str], feeds: Any) -> Any:
        raise error

    executor = OrtExecutor(types.SimpleNamespace(get_outputs=list, run=run))
    with pytest.raises(kind, match="ONNX Runtime"):
        executor.run({})
    executor.close()
    with pytest.raises(InputError, match="closed"):
        executor.run({})


def test_without_the_package_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        engine_file,
        "probe_package",
        lambda name, dist, extra: Availability(name, False, "", "absent", extra),
    )
    with pytest.raises(BackendMissingError) as caught:
        OrtEngine().open(tmp_path / "m.onnx", Part("ort", "m.onnx", (), ()), threads=None)
    assert "edgevit[ort]" in caught.value.hint
