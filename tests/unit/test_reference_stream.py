"""The streaming reference: same numbers as a session, lazily, errors from the right side."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit.errors import InputError
from edgevit.reference_stream import Pieces, run_stream
from tests.support.graphs import GraphBuilder

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(0, 1, (3, 2)).astype(np.float32)


def _model() -> bytes:
    g = GraphBuilder()
    x = g.input("x", (2, 3))
    y = g.op("MatMul", x, g.const(WEIGHT), out="y")
    n = g.op("ArgMax", x, axis=1, keepdims=0, out="n")
    proto: bytes = g.proto([y, n]).SerializeToString()
    return proto


def _samples(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(0, 1, (2, 3)).astype(np.float32)} for _ in range(count)]


def test_every_sample_gives_its_outputs_in_order() -> None:
    samples = _samples(5)
    # A transposed view and a name that the model does not have must not matter.
    given = [{"x": np.asfortranarray(s["x"]), "other": np.zeros(3)} for s in samples]
    found = list(run_stream(_model(), given, threads=1))
    assert len(found) == 5
    for sample, outputs in zip(samples, found, strict=True):
        # Three products: sqrt(3) roundings would do, 1e-6 has room for any order.
        np.testing.assert_allclose(outputs["y"], sample["x"] @ WEIGHT, atol=1e-6, rtol=1e-6)
        np.testing.assert_array_equal(outputs["n"], sample["x"].argmax(axis=1))
        assert outputs["n"].dtype == np.int64


def test_nothing_in_nothing_out() -> None:
    assert list(run_stream(_model(), [], threads=1)) == []


def test_a_stream_may_be_left_early() -> None:
    def endless() -> Iterator[dict[str, Array]]:
        while True:
            yield _samples(1)[0]

    stream = run_stream(_model(), endless(), threads=1)
    assert set(next(stream)) == {"y", "n"}
    stream.close()  # type: ignore[attr-defined]  # ends the child too


def test_samples_that_the_engine_refuses() -> None:
    wrong = [{"x": np.zeros((2, 4), np.float32)}]
    with pytest.raises(InputError, match="cannot run the model on the calibration") as caught:
        list(run_stream(_model(), wrong, threads=1))
    assert "shapes and dtypes" in caught.value.hint


def test_a_model_that_the_engine_refuses() -> None:
    with pytest.raises(InputError, match="ONNX Runtime cannot run the model"):
        list(run_stream(b"no model", _samples(1), threads=1))


def test_an_error_of_the_source_is_its_own() -> None:
    def broken() -> Iterator[dict[str, Array]]:
        yield _samples(1)[0]
        raise InputError("the second image cannot be read")

    with pytest.raises(InputError, match="the second image"):
        list(run_stream(_model(), broken(), threads=1))


def _children() -> set[int]:
    task = Path("/proc/self/task")
    return {int(c) for t in task.iterdir() for c in (t / "children").read_text().split()}


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_child_that_is_stopped_in_a_write_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal cuts a blocked write short: the rest has to follow, unbuffered or not."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    g = GraphBuilder()
    size = 400_000  # floats: far more than a pipe holds
    model: bytes = g.proto([g.op("Abs", g.input("x", (size,)), out="y")]).SerializeToString()
    samples = [{"x": -np.arange(k, k + size, dtype=np.float32)} for k in range(4)]
    before = _children()
    found = run_stream(model, samples, threads=1)
    answers = [next(found)["y"]]
    (child,) = _children() - before
    for _ in range(3):
        limit = time.monotonic() + 20
        while _state(child) != "S" and time.monotonic() < limit:
            time.sleep(0.01)
        time.sleep(0.05)  # asleep in a write to a full pipe: nobody reads
        os.kill(child, signal.SIGSTOP)
        os.kill(child, signal.SIGCONT)
        answers.append(next(found)["y"])
    for sample, y in zip(samples, answers, strict=True):
        np.testing.assert_array_equal(y, -sample["x"])


def test_one_child_runs_models_in_turn() -> None:
    models = []
    for op in ("Abs", "Neg"):
        g = GraphBuilder()
        models.append(g.proto([g.op(op, g.input("x", (5,)), out="y")]).SerializeToString())
    samples = [{"x": np.arange(k, k + 5, dtype=np.float32) - 3} for k in range(3)]
    before = _children()
    with Pieces() as engine:
        for model, true in zip(models * 2, (np.abs, np.negative) * 2, strict=True):
            found = [answer["y"] for answer in engine.run(model, samples)]
            assert len(_children() - before) == 1
            for sample, y in zip(samples, found, strict=True):
                np.testing.assert_array_equal(y, true(sample["x"]))
    assert _children() <= before


def test_a_piece_that_does_not_run_says_why() -> None:
    with Pieces() as engine, pytest.raises(InputError, match="cannot run the model"):
        list(engine.run(b"no model", [{"x": np.zeros(5, np.float32)}]))
    with Pieces() as engine, pytest.raises(InputError, match="cannot run the model"):
        list(engine.run(_model(), [{"x": np.zeros((7, 7, 7), np.float32)}]))
