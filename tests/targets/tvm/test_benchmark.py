"""What the benchmark of kernels times is the same product in each engine."""

from __future__ import annotations

import numpy as np

from benchmarks.tvm_kernels import GATE, Row
from benchmarks.tvm_subjects import Product, onnxruntime, ours
from tests.support.tvm_reference import EPSILON, sum_bound


def test_float32_products_agree() -> None:
    product = Product(20, 70, 33, integers=False)
    a, b = (x.astype(np.float64) for x in product.operands())
    mine, (theirs, value) = ours(product), onnxruntime(product)
    mine()
    theirs()
    bound = sum_bound(33, np.abs(a) @ np.abs(b)) + EPSILON
    assert (np.abs(mine.result().reshape(20, 70) - a @ b) <= bound).all()
    assert (np.abs(value.numpy() - a @ b) <= bound).all()


def test_products_of_bytes_agree() -> None:
    product = Product(20, 70, 64, integers=True)
    mine, (theirs, value) = ours(product), onnxruntime(product)
    mine()
    theirs()
    got, want = mine.result().reshape(20, 70).astype(int), value.numpy().astype(int)
    # Halves may fall either way: the scale is not a power of two.
    assert np.abs(got - want).max() <= 1
    assert (got != want).mean() < 0.01
    assert len(np.unique(want)) > 100, "outputs fill the range"


def test_gate_compares_with_the_best_peer() -> None:
    row = Row("x", (1, 1, 1), "float32", 9.0, {"edgevit": 3.0, "a": 1.0, "b": 4.5})
    assert row.to_best == 3.0 / 4.5 < GATE
