"""Convolutions, dense, grouped and depthwise, against numpy, and mutants of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edgevit.targets.tvm.kernels.conv import Conv, Window, pack_conv
from edgevit.targets.tvm.kernels.depthwise import Depthwise, pack_depthwise
from edgevit.targets.tvm.kernels.epilogue import Activation, Epilogue
from edgevit.targets.tvm.kernels.gemm import layout
from edgevit.targets.tvm.machine import MACHINES, Machine
from tests.support.tvm_kernels import caller, here, share_always
from tests.support.tvm_mutants import MUTANTS
from tests.support.tvm_reference import convolved, excess, finished, sum_bound

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """A convolution of a padded image; ``apart``: more channels lie between the pixels."""

    output: tuple[int, int]
    channels: int
    out: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    batch: int = 1
    groups: int = 1
    apart: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Input rows and columns, one more of each than the windows need."""
        high, wide = (
            (n - 1) * s + (k - 1) * d + 2
            for n, s, k, d in zip(
                self.output, self.strides, self.kernel, self.dilations, strict=True
            )
        )
        return high, wide

    @property
    def window(self) -> Window:
        high, wide = self.size
        pixel = self.channels + self.apart
        steps = (high * wide * pixel, wide * pixel, pixel)
        return Window(
            self.batch, self.output, self.kernel, self.strides, self.dilations, *steps
        )


EPILOGUE = Epilogue(bias=True, activation=Activation("relu"))

DENSE = [
    Case((1, 1), 1, 1, (1, 1)),
    Case((5, 7), 3, 21, (3, 3), strides=(2, 2)),
    Case((2, 3), 5, 66, (3, 1), dilations=(2, 1), batch=2),
    Case((4, 30), 8, 16, (3, 3)),
    Case((3, 2), 3, 33, (4, 4), strides=(4, 4)),
    Case((7, 1), 6, 9, (2, 3), dilations=(1, 2), apart=3),
    Case((3, 5), 6, 40, (3, 3), groups=2, batch=2),
    Case((3, 3), 8, 4, (1, 1), strides=(1, 2), groups=4),
]
DEPTHWISE = [
    Case((1, 1), 1, 1, (1, 1), groups=1),
    Case((5, 9), 17, 17, (3, 3), groups=17),
    Case((3, 19), 40, 40, (5, 5), strides=(2, 2), batch=2, groups=40),
    Case((2, 3), 16, 16, (3, 2), dilations=(2, 3), groups=16, apart=5),
    Case((2, 11), 3, 3, (7, 7), groups=3),
    Case((4, 4), 5, 15, (3, 3), groups=5),
]


def run(case: Case, machine: Machine, epilogue: Epilogue, depthwise: bool) -> float:
    """The kernel's error in units of its bound."""
    rng = np.random.default_rng(0)
    window, shape = case.window, (case.batch, *case.size, case.channels + case.apart)
    images = rng.standard_normal(shape, dtype=np.float32)
    weights = rng.standard_normal(
        (case.out, case.channels // case.groups, *case.kernel), dtype=np.float32
    )
    bias = rng.standard_normal(case.out, dtype=np.float32)
    kernel: Conv | Depthwise
    if depthwise:
        kernel = Depthwise(window, case.out, case.out // case.groups, case.out, epilogue)
        packed = pack_depthwise(weights)
    else:
        columns = layout(case.out // case.groups, machine)
        kernel = Conv(
            window, case.channels // case.groups, case.groups, columns, case.out, epilogue
        )
        packed = pack_conv(weights, case.groups, columns)
    read = images.ravel()[: kernel.operands[0].size]
    got = caller(kernel, machine)(read, packed, bias).reshape(
        case.batch, *case.output, case.out
    )
    exact = convolved(images, weights, window, case.groups)
    depth = case.channels // case.groups * window.taps
    bound = sum_bound(depth, convolved(np.abs(images), np.abs(weights), window, case.groups))
    return excess(got, *finished(epilogue, exact, bound, {"bias": bias}))


@pytest.mark.parametrize("case", DENSE, ids=str)
def test_convolution_equals_numpy(case: Case) -> None:
    assert run(case, here(), EPILOGUE, depthwise=False) <= 1


@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
def test_depthwise_equals_numpy(case: Case) -> None:
    assert run(case, here(), EPILOGUE, depthwise=True) <= 1


@pytest.mark.skipif("avx2" not in here().features, reason="no AVX2 here")
@pytest.mark.parametrize(("case", "depthwise"), [(DENSE[1], False), (DEPTHWISE[2], True)])
def test_vectors_of_eight(case: Case, depthwise: bool) -> None:
    assert run(case, MACHINES["x86-64-v3"], EPILOGUE, depthwise) <= 1


@pytest.mark.parametrize(("case", "depthwise"), [(DENSE[6], False), (DEPTHWISE[2], True)])
def test_shared_by_the_cores(
    case: Case, depthwise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_always(monkeypatch)
    assert run(case, here(), EPILOGUE, depthwise) <= 1


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda m: m.__name__)
@pytest.mark.parametrize(("case", "depthwise"), [(DENSE[1], False), (DEPTHWISE[2], True)])
def test_mutants_are_rejected(
    mutate: Callable[[pytest.MonkeyPatch], None],
    case: Case,
    depthwise: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutate(monkeypatch)
    assert run(case, here(), EPILOGUE, depthwise) > 1


@pytest.mark.long
@pytest.mark.parametrize("wide", [1, 2, 3, 5, 6, 7, 8, 12, 13])
@pytest.mark.parametrize("channels", [1, 8, 15, 17, 33])
@pytest.mark.parametrize("depthwise", [False, True])
def test_every_width(wide: int, channels: int, depthwise: bool) -> None:
    groups = channels if depthwise else 1
    case = Case((2, wide), channels, channels, (3, 3), (1, 2), groups=groups)
    assert run(case, here(), EPILOGUE, depthwise) <= 1
