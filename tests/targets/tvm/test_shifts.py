"""Kernels of shifts and additions against int64, exactly, on every machine that runs here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.targets.tvm.kernels.codes import dot_codes, pack_codes, panels
from edgevit.targets.tvm.kernels.conv import Conv, Window
from edgevit.targets.tvm.kernels.epilogue import PLAIN
from edgevit.targets.tvm.machine import MACHINES, Machine
from tests.support.tvm_kernels import caller, here, runs_here, share_always
from tests.support.tvm_mutants import MUTANTS
from tests.support.tvm_reference import convolved
from tests.support.tvm_shifts import (
    ADDITIONS,
    CODE_MUTANTS,
    FORMS,
    MASK_MUTANTS,
    addition,
    product,
    random_parts,
)

Array = np.ndarray[Any, Any]
Mutant = Callable[[pytest.MonkeyPatch], None]

USABLE = [m for m in MACHINES.values() if runs_here(m)]
# M, N, K: one of each; fewer columns than lanes; odd vectors; tails of rows, of K, of chunks.
SHAPES = [(1, 1, 1), (2, 4, 12), (3, 8, 4), (13, 49, 5), (17, 20, 150)]
# B, M, N, K of the additions.
SUMS = [(1, 1, 1, 1), (2, 16, 32, 8), (1, 17, 5, 7), (2, 40, 33, 35)]


def right(machine: Machine, name: str, shape: tuple[int, ...]) -> bool:
    """Whether a kernel's result is the exact one."""
    if name in FORMS:
        kernel, operands, want = product(machine, name, (shape[0], shape[1], shape[2]))
    else:
        kernel, operands, want = addition(machine, name, (shape[0], *shape[1:4]))  # type: ignore[arg-type]
    got = caller(kernel, machine)(*operands)
    return np.array_equal(got.reshape(want.shape), want)


@pytest.mark.parametrize("machine", USABLE, ids=lambda m: m.name)
@pytest.mark.parametrize("name", FORMS)
def test_products_are_exact(name: str, machine: Machine) -> None:
    for shape in SHAPES:
        assert right(machine, name, shape), shape


@pytest.mark.parametrize("machine", USABLE, ids=lambda m: m.name)
@pytest.mark.parametrize("name", ADDITIONS)
def test_additions_are_exact(name: str, machine: Machine) -> None:
    for shape in SUMS:
        assert right(machine, name, shape), shape


sizes = st.integers(1, 70)


@pytest.mark.parametrize(
    "name", ["1 term, decoded", "1 term, shifted", "2 wide terms, shifted"]
)
@settings(max_examples=3, deadline=None)
@given(st.tuples(st.integers(1, 15), sizes, sizes))
def test_products_of_any_shape(name: str, shape: tuple[int, int, int]) -> None:
    assert right(here(), name, shape)


@pytest.mark.long
@pytest.mark.parametrize("machine", USABLE, ids=lambda m: m.name)
@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=25, deadline=None)
@given(st.tuples(st.integers(1, 30), st.integers(1, 150), st.integers(1, 150)))
def test_products_of_any_shape_everywhere(
    name: str, machine: Machine, shape: tuple[int, int, int]
) -> None:
    assert right(machine, name, shape)


@pytest.mark.parametrize("name", ADDITIONS)
@settings(max_examples=3, deadline=None)
@given(st.tuples(st.integers(1, 3), sizes, sizes, sizes))
def test_additions_of_any_shape(name: str, shape: tuple[int, int, int, int]) -> None:
    assert right(here(), name, shape)


@pytest.mark.long
@pytest.mark.parametrize("machine", USABLE, ids=lambda m: m.name)
@pytest.mark.parametrize("name", ADDITIONS)
@settings(max_examples=25, deadline=None)
@given(st.tuples(st.integers(1, 3), st.integers(1, 150), sizes, st.integers(1, 300)))
def test_additions_of_any_shape_everywhere(
    name: str, machine: Machine, shape: tuple[int, int, int, int]
) -> None:
    assert right(machine, name, shape)


def test_shared_by_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    share_always(monkeypatch)
    assert right(here(), "2 terms, decoded", (25, 131, 20))
    assert right(here(), "1 term, shifted", (25, 131, 20))


def test_a_convolution_keeps_its_taps_apart() -> None:
    rng, machine, out, channels, zero = np.random.default_rng(0), here(), 34, 12, 7
    kind, columns = dot_codes(machine, 2), panels(out // 2, machine)
    images = rng.integers(0, 127, (1, 6, 9, channels), kind.left)
    parts = random_parts(rng, 2, False, out, channels // 2, 3, 2)
    flat = parts.reshape(2, 2, out // 2, channels // 2, 3, 2).transpose(1, 0, 4, 5, 3, 2)
    # Channels of a group are a multiple of four where kernels read them.
    spread = np.zeros((1, 6, 9, 2, 8), kind.left)
    spread[..., :6] = images.reshape(1, 6, 9, 2, 6)
    deep = np.zeros((2, 2, 3, 2, 8, out // 2), np.int64)
    deep[..., :6, :] = flat
    packs = [pack_codes(g.reshape(2, -1, out // 2), zero, columns, kind) for g in deep]
    packed, offsets = (np.concatenate(p) for p in zip(*packs, strict=True))
    window = Window(1, (3, 4), (3, 2), (1, 2), (1, 1), 0, 9 * 16, 16)
    kernel = Conv(window, 8, 2, columns, out, PLAIN, kind)
    got = caller(kernel, machine)(spread.ravel()[: kernel.operands[0].size], packed, offsets)
    window = Window(1, (3, 4), (3, 2), (1, 2), (1, 1), 0, 9 * channels, channels)
    want = convolved(images.astype(np.int64) - zero, parts.sum(0), window, 2)
    assert np.array_equal(got.reshape(want.shape), want)


def test_codes_take_half_a_byte_a_term() -> None:
    for terms in (1, 2, 3):
        kernel, _, _ = product(
            here(), f"{terms} term{'s' * (terms > 1)}, decoded", (1, 64, 64)
        )
        assert kernel.operands[1].size == terms * 64 * 64 // 2
    kernel, _, _ = product(here(), "2 wide terms, shifted", (1, 64, 64))
    assert kernel.operands[1].size == 2 * 64 * 64 * 5 // 8


@pytest.mark.parametrize("name", ["2 terms, decoded", "1 term, shifted"])
@pytest.mark.parametrize("mutate", [*MUTANTS, *CODE_MUTANTS], ids=lambda m: m.__name__)
def test_mutants_of_products_are_rejected(
    mutate: Mutant, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    assert not right(here(), name, (13, 40, 32))


@pytest.mark.parametrize("mutate", MUTANTS[:2], ids=lambda m: m.__name__)
def test_mutants_of_counts_are_rejected(
    mutate: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    assert not right(here(), "bits", (1, 23, 33, 6))


@pytest.mark.parametrize("name", ["float", "bytes"])
@pytest.mark.parametrize("mutate", MASK_MUTANTS, ids=lambda m: m.__name__)
def test_mutants_of_additions_are_rejected(
    mutate: Mutant, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    assert not right(here(), name, (1, 20, 33, 6))
