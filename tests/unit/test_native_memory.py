"""The judgment of the memory benchmark; its figures are measured by ``make``."""

from __future__ import annotations

import pytest

from benchmarks.native_memory import smallest


@pytest.mark.parametrize(
    ("ort", "litert", "expected"),
    [(110.0, 98.0, True), (110.0, 74.0, False), (73.0, 98.0, False)],
)
def test_native_code_must_be_smaller_than_each_engine(
    ort: float, litert: float, expected: bool
) -> None:
    found = {"tvm": 74.0, "ort": ort, "litert": litert, "C": 31.0}
    assert smallest(found) is expected
