"""Packed matrix products against numpy, tails in every dimension, and mutants of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.epilogue import PLAIN, Activation, Epilogue
from edgevit.targets.tvm.kernels.gemm import Gemm, layout, pack_b
from edgevit.targets.tvm.machine import MACHINES, Machine
from tests.support.tvm_kernels import caller, here
from tests.support.tvm_mutants import MUTANTS
from tests.support.tvm_reference import ACTIVATIONS, excess, finished, sum_bound

Array = np.ndarray[Any, Any]
WHOLE = Epilogue(bias=True, activation=Activation("gelu"), residual=True)

# M, N, K: one of each; tails of rows, vectors, panels; a row stride larger than K.
SHAPES = [
    (1, 1, 1),
    (1, 1000, 19),
    (2, 7, 5),
    (13, 17, 1),
    (5, 64, 33),
    (11, 131, 7),
    (29, 80, 3),
    (197, 192, 64),
]
MANY = [(m, n, k) for m in (1, 3, 6, 7, 25) for n in (1, 5, 16, 31, 48, 65) for k in (1, 4, 9)]


def case(kernel: Gemm, machine: Machine, seed: int) -> tuple[list[Array], Array, Array]:
    """Operands, exact result and bound, both [M, N]."""
    rng = np.random.default_rng(seed)
    m, n, k = kernel.rows, kernel.columns.count, kernel.depth
    flat = rng.standard_normal(kernel.operands[0].size, dtype=np.float32)
    step = (4 * kernel.row_stride, 4)
    a = np.lib.stride_tricks.as_strided(flat, (m, k), step)
    b = rng.standard_normal((k, n), dtype=np.float32)
    extra: dict[str, Array] = {}
    for operand in kernel.operands[2:-1]:
        values = rng.standard_normal(operand.size, dtype=np.float32)
        extra[operand.name] = values
    exact = a.astype(np.float64) @ b.astype(np.float64)
    bound = sum_bound(k, np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)))
    shaped = {name: rows(kernel, v) if name == "residual" else v for name, v in extra.items()}
    want, bound = finished(kernel.epilogue, exact, bound, shaped)
    return [flat, pack_b(b, machine), *extra.values()], want, bound


def rows(kernel: Gemm, flat: Array) -> Array:
    """[M, N] of a flat output with its row stride."""
    shape, step = (kernel.rows, kernel.columns.count), (4 * kernel.output_stride, 4)
    return np.lib.stride_tricks.as_strided(flat, shape, step)


def error(kernel: Gemm, machine: Machine, seed: int = 0) -> float:
    """Of the kernel's result, in units of its bound."""
    operands, want, bound = case(kernel, machine, seed)
    return excess(rows(kernel, caller(kernel, machine)(*operands)), want, bound)


def gemm(machine: Machine, m: int, n: int, k: int, epilogue: Epilogue = PLAIN) -> Gemm:
    return Gemm(m, k, layout(n, machine), k, n, epilogue)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_numpy(shape: tuple[int, int, int]) -> None:
    assert error(gemm(here(), *shape), here()) <= 1


def test_rows_may_lie_apart() -> None:
    kernel = replace(gemm(here(), 9, 21, 6, WHOLE), row_stride=11, output_stride=30)
    assert error(kernel, here()) <= 1


def test_nothing_is_written_between_the_rows() -> None:
    kernel = replace(gemm(here(), 9, 21, 6), output_stride=30)
    operands, _, _ = case(kernel, here(), 0)
    got = caller(kernel, here())(*operands)
    assert np.isnan(np.append(got, [np.nan] * 9).reshape(9, 30)[:, 21:]).all()


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.name)
@pytest.mark.parametrize("first", [True, False])
def test_epilogues(activation: Activation, first: bool) -> None:
    epilogue = Epilogue(bias=True, activation=activation, residual=True, residual_first=first)
    assert error(gemm(here(), 7, 18, 5, epilogue), here()) <= 1


@pytest.mark.skipif("avx2" not in here().features, reason="no AVX2 here")
@pytest.mark.parametrize("shape", [(1, 9, 3), (13, 27, 5), (20, 41, 8)], ids=str)
def test_vectors_of_eight(shape: tuple[int, int, int]) -> None:
    machine = MACHINES["x86-64-v3"]
    assert error(gemm(machine, *shape, WHOLE), machine) <= 1


@pytest.mark.long
@pytest.mark.parametrize("shape", MANY, ids=str)
def test_equals_numpy_everywhere(shape: tuple[int, int, int]) -> None:
    assert error(gemm(here(), *shape, WHOLE), here(), seed=sum(shape)) <= 1


def test_packing_deals_columns_to_panels() -> None:
    columns = Columns(7, 2, 2)
    weights = np.arange(14).reshape(2, 7)
    # Vectors 01 23 | 45 56: the last one overlaps.
    first, last = [0, 1, 2, 3, 7, 8, 9, 10], [4, 5, 5, 6, 11, 12, 12, 13]
    assert columns.pack(weights).tolist() == first + last


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda m: m.__name__)
def test_mutants_are_rejected(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = gemm(here(), 13, 40, 9, Epilogue(bias=True))
    assert error(kernel, here()) <= 1
    mutate(monkeypatch)
    assert error(kernel, here()) > 1
