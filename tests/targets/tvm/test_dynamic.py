"""Data quantized as the model runs: codes of rows, and layers that multiply them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgevit.targets.tvm.kernels.arithmetic import integer, pack_integers
from edgevit.targets.tvm.kernels.epilogue import Epilogue
from edgevit.targets.tvm.kernels.gemm import Gemm, layout
from edgevit.targets.tvm.kernels.rows import QuantizeRows
from edgevit.targets.tvm.machine import MACHINES, Machine, native
from tests.support.graphs import feeds_for
from tests.support.native import kernels, lower, run_all
from tests.support.quantized import QuantizedBuilder
from tests.support.tvm_kernels import runs_here

Array = np.ndarray[Any, Any]
USABLE = [m for m in MACHINES.values() if runs_here(m)]


def codes_of(x: Array) -> tuple[Array, Array]:
    """Signed codes and steps of rows, every operation in float32 as ours."""
    peak = np.abs(x).max(1)
    with np.errstate(divide="ignore"):
        inverse = np.where(peak > 0, np.float32(127) / peak, np.float32(0))
    return np.rint(x * inverse[:, None]).astype(np.int64), peak / np.float32(127)


def _data(rows: int, columns: int) -> Array:
    x = np.random.default_rng(rows + columns).standard_normal((rows, columns))
    x = (x * np.geomspace(1e-3, 1e3, rows)[:, None]).astype(np.float32)
    x[rows // 2] = 0
    return x


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 19), (197, 64)])
@pytest.mark.parametrize(("zero", "dtype"), [(128, "uint8"), (0, "int8")])
def test_codes_are_exact(rows: int, columns: int, zero: int, dtype: str) -> None:
    x, width = _data(rows, columns), columns + -columns % 4
    made = [np.zeros(rows * width, dtype), np.zeros(rows, np.float32), x.ravel()]
    kernels(native(), [(QuantizeRows(rows, columns, columns, width, zero, dtype), made)])
    codes, steps = codes_of(x)
    assert np.array_equal(made[0].reshape(rows, width)[:, :columns], codes + zero)
    assert np.array_equal(made[1], steps)


def _product(machine: Machine, x: Array, w: Array, scale: Array) -> Array:
    """Two kernels, as a layer has them."""
    (rows, depth), count = x.shape, w.shape[1]
    kind, columns = integer(machine), layout(count, machine)
    zero = 128 if kind.left == "uint8" else 0
    codes, steps = np.zeros(rows * depth, kind.left), np.zeros(rows, np.float32)
    packed, offsets = pack_integers(w, zero, columns, kind)
    out = np.zeros(rows * count, np.float32)
    after = Epilogue(scale=True, row_scale=True)
    gemm = Gemm(rows, depth, columns, depth, count, after, kind)
    first = QuantizeRows(rows, depth, depth, depth, zero, kind.left)
    kernels(machine, [(first, [codes, steps, x.ravel()])])
    kernels(machine, [(gemm, [codes, packed, offsets, scale, steps, out])])
    return out.reshape(rows, count)


@pytest.mark.parametrize("machine", USABLE, ids=lambda m: m.name)
def test_layers_equal_integers(machine: Machine) -> None:
    rng = np.random.default_rng(1)
    x, w = _data(13, 20), rng.integers(-127, 128, (20, 37)).astype(np.int8)
    scale = rng.uniform(0.5, 2, 37).astype(np.float32)
    found = _product(machine, x, w, scale)
    codes, steps = codes_of(x)
    sums = (codes @ w.astype(np.int64)).astype(np.float32)
    exact = (sums * scale) * steps[:, None]
    # Two multiplications, whose order another compiler may choose: an ulp each.
    limit = 2 * 2.0**-23 * np.abs(exact)
    assert (np.abs(found - exact) <= limit).all()
    off = (sums * scale) * np.roll(steps, 1)[:, None]
    assert (np.abs(found - off) > limit).any(), "steps of another row pass"


@pytest.mark.parametrize("first", ["linear", "conv"])
def test_two_layers_read_one_value_along_two_axes(first: str) -> None:
    """A square picture: its rows along W and along C are equally many and equally long."""
    rng, graph = np.random.default_rng(2), QuantizedBuilder()
    x = graph.input("x", (1, 8, 6, 8))
    codes = {n: rng.integers(-127, 128, s) for n, s in (("linear", (8, 5)), ("conv", (7, 8)))}

    def linear() -> str:
        return graph.op("MatMul", x, graph.weight(codes["linear"], 0.01, 1), out="linear")

    def conv() -> str:
        weight = graph.weight(codes["conv"].reshape(7, 8, 1, 1), 0.01, 0)
        plain: dict[str, Any] = {
            "strides": [1, 1],
            "pads": [0] * 4,
            "dilations": [1, 1],
            "group": 1,
        }
        return graph.op("Conv", x, weight, out="conv", kernel_shape=[1, 1], **plain)

    made = [linear(), conv()] if first == "linear" else [conv(), linear()]
    model = graph.model(*made)
    feeds = feeds_for(model)
    (ran,) = run_all([(lower(model, "w8a8-dyn"), feeds)])
    assert ran.error == ""
    for name, order in (("linear", (0, 1, 2, 3)), ("conv", (0, 2, 3, 1))):
        rows = feeds["x"].transpose(order)
        left, steps = codes_of(rows.reshape(-1, 8))
        right = codes[name] if name == "linear" else codes[name].T
        exact = (left @ right).astype(np.float32) * np.float32(0.01) * steps[:, None]
        found = ran.outputs[name].transpose(order).reshape(exact.shape)
        # Two multiplications, whose order another compiler may choose: an ulp each.
        assert (np.abs(found - exact) <= 2 * 2.0**-23 * np.abs(exact)).all(), name
