"""Kernels of the TVM backend, called on numpy arrays on this processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgevit.targets.tvm.kernels import tile
from edgevit.targets.tvm.kernels.kernel import Kernel
from edgevit.targets.tvm.machine import Machine, native
from edgevit.targets.tvm.single import Single

Array = np.ndarray[Any, Any]
here = native


def runs_here(machine: Machine) -> bool:
    """Whether this processor has all that the machine's code uses."""
    with open("/proc/cpuinfo") as file:
        flags = next((line for line in file if line.startswith("flags")), "").split()
    return machine.architecture == "x86_64" and set(machine.features) <= set(flags)


def share_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make kernels share their loops among the cores however little there is to do."""
    monkeypatch.setattr(tile, "_PARALLEL", 0)


def caller(kernel: Kernel, machine: Machine) -> Callable[..., Array]:
    """A function from the operands that are read to the one that is written last."""

    def call(*arrays: Array) -> Array:
        single = Single(kernel, machine, arrays)
        single()
        return single.result()

    return call
