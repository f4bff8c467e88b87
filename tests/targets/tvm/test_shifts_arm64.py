"""Kernels of shifts and additions as ARM64 code, under emulation, against int64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.arm64.root import missing_tools
from edgevit.targets.tvm.machine import MACHINES, Machine
from tests.support.tvm_emulated import run_emulated
from tests.support.tvm_shifts import (
    ADDITIONS,
    FORMS,
    addition,
    ignore_signs,
    product,
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(missing_tools()), reason="no emulator of ARM64 here"),
]
ARM = [m for m in MACHINES.values() if m.architecture == "aarch64"]
SHAPES = 8


def forms(machine: Machine) -> list[str]:
    """Those that the machine has instructions for."""
    return [n for n, (_, _, dot) in FORMS.items() if machine.dot == "sdot" or not dot]


@pytest.mark.parametrize("machine", ARM, ids=lambda m: m.name)
def test_products_are_exact(machine: Machine) -> None:
    rng = np.random.default_rng(7)
    cases = [
        product(machine, name, (int(m), int(n), int(k)))
        for name in forms(machine)
        for m, n, k in [(1, 1, 1), (13, 17, 5), *rng.integers(1, 40, (SHAPES, 3))]
    ]
    found = run_emulated([(kernel, arrays) for kernel, arrays, _ in cases], machine)
    for (kernel, _, want), got in zip(cases, found, strict=True):
        assert np.array_equal(got.reshape(want.shape), want), kernel


@pytest.mark.parametrize("machine", ARM, ids=lambda m: m.name)
def test_additions_are_exact(machine: Machine) -> None:
    rng = np.random.default_rng(8)
    cases = [
        addition(machine, name, (int(b), int(m), int(n), int(k)))
        for name in ADDITIONS
        for b, m, n, k in [(1, 1, 1, 1), (1, 17, 5, 7), *rng.integers(1, 40, (SHAPES, 4))]
    ]
    found = run_emulated([(kernel, arrays) for kernel, arrays, _ in cases], machine)
    for (kernel, _, want), got in zip(cases, found, strict=True):
        assert np.array_equal(got.reshape(want.shape), want), kernel


def test_a_mutant_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    ignore_signs(monkeypatch)
    machine = MACHINES["cortex-a76"]
    cases = [product(machine, name, (5, 9, 16)) for name in forms(machine)[:4]]
    found = run_emulated([(kernel, arrays) for kernel, arrays, _ in cases], machine)
    for (_, _, want), got in zip(cases, found, strict=True):
        assert not np.array_equal(got.reshape(want.shape), want)
