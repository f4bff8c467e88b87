"""The streaming reference: same numbers as a session, lazily, errors from the right side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgevit.errors import InputError
from edgevit.reference_stream import run_stream
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
