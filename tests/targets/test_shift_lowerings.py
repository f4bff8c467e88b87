"""Shift layers on engines: the integers of the packed codes, bit for bit.

The oracle is a sum in int64 over weights decoded in plain Python. Scales are powers of two, so
that a float result is exact wherever the sum is; LiteRT's result in codes is its kernels' own
rounding of that sum (``tests/support/integer_kernels.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.backend import LowerOptions
from edgevit.edits import ShiftWeight
from edgevit.inlining import unpack_shifts
from edgevit.passes.apply_shifts import apply_shifts
from edgevit.runtimes.coreml import CoreMLEngine
from edgevit.shift_codes import Packed, encode, levels
from edgevit.target import load_target
from edgevit.targets.onnx.lower import OnnxBackend
from tests.passes.harness import Array, build
from tests.support.integer_kernels import convolve, requantize
from tests.support.tflite import lower as lower_litert
from tests.support.tflite import run_all
from tests.targets.coreml.harness import lower as lower_coreml

READ = 2.0**-4


def decoded(packed: Packed) -> Array:
    """The integers ``[K, N]``, digit by digit, with Python's own numbers."""
    terms, _, outputs = packed.codes.shape
    found = np.zeros((packed.inputs, outputs), object)
    for t in range(terms):
        for k in range(packed.inputs):
            for n in range(outputs):
                code = int(packed.codes[t, k // 2, n]) >> (4 * (k % 2)) & 15
                if packed.signs is None:
                    negative, m = code >> 3, code & 7
                else:
                    negative, m = int(packed.signs[t, k // 8, n]) >> (k % 8) & 1, code
                found[k, n] += (-1 if negative else 1) * (1 << m >> 1)
    return found.astype(np.int64)


class Drawn:
    """A layer of random shape between quantizers.

    Attributes:
        model: With the shift layer in it.
        x: Float input; on the quantizer's grid.
        sums: Exact ``sum q x`` of codes, int64, channels last.
        factors: ``scale * READ`` of every channel.
        bias: Of every channel, in real units; whole multiples of every factor.
    """

    def __init__(self, seed: int, *, wide: bool, conv: bool, zero: int, made: float) -> None:
        rng = np.random.default_rng(seed)
        terms = int(rng.integers(1, 4))
        self.conv = conv
        outputs = int(rng.integers(1, 9))
        group, inner = 1, int(rng.integers(1, 14))
        if conv:
            group = int(rng.choice([1, 1, 2]))
            inner, outputs = inner % 4 + 1, outputs * group
        window = (int(rng.integers(1, 4)), int(rng.integers(1, 4))) if conv else ()
        shape = (outputs, inner, *window) if conv else (inner, outputs)
        depth = int(np.prod(shape)) // outputs
        self.packed = encode(rng.choice(levels(terms, wide), (depth, outputs)), terms, wide)
        scale = (2.0 ** rng.integers(-8, -5, outputs)).astype(np.float32)
        self.factors = scale.astype(np.float64) * READ
        self.bias = (rng.integers(-8, 9, outputs) * READ).astype(np.float32)
        x_shape = (1, inner * group, 6, 5) if conv else (2, 3, inner)
        low, high = (-zero, 255 - zero) if zero > 0 else (-127, 127)
        codes = rng.integers(max(low, -100), min(high, 100) + 1, x_shape)
        self.x = (codes * READ).astype(np.float32)
        self.sums = self._sums(codes, shape, group)
        self.model = self._model(shape, group, scale, zero, made)

    def _sums(self, codes: Array, shape: tuple[int, ...], group: int) -> Array:
        q = decoded(self.packed)
        if not self.conv:
            return np.asarray(codes.astype(np.int64) @ q)
        filters = q.T.reshape(shape).transpose(0, 2, 3, 1)
        moved = codes.transpose(0, 2, 3, 1)
        return convolve(moved, filters, (1, 1), (1, 0, 0, 1), group)

    def _model(
        self, shape: tuple[int, ...], group: int, scale: Array, zero: int, made: float
    ) -> ir.Model:
        layer = "a = MatMul(d, W)\nf = Add(a, b)"
        if self.conv:
            window = list(shape[2:])
            layer = (
                f"f = Conv<kernel_shape={window}, pads=[1,0,0,1], strides=[1,1], "
                f"dilations=[1,1], group={group}>(d, W, b)"
            )
        out = self.sums.shape
        out = (out[0], out[3], out[1], out[2]) if self.conv else out
        dtype = np.uint8 if zero > 0 else np.int8
        end = "p = QuantizeLinear(f, t, o)\ny = DequantizeLinear(p, t, o)" if made else ""
        body = f"q = QuantizeLinear(x, s, z)\nd = DequantizeLinear(q, s, z)\n{layer}\n{end}"
        name = "y" if made else "f"
        dims = ",".join(map(str, self.x.shape))
        constants: dict[str, Array] = {
            "W": np.zeros(shape, np.float32),
            "b": self.bias,
            "s": np.asarray(READ, np.float32),
            "z": np.asarray(zero, dtype),
            "t": np.asarray(made or 1.0, np.float32),
            "o": np.asarray(0, dtype),
        }
        used = {k: v for k, v in constants.items() if made or k not in "to"}
        result = ",".join(map(str, out))
        model = build(f"float[{dims}] x => float[{result}] {name}", body, used)
        key = "f" if self.conv else "a"
        edit = ShiftWeight(
            key, self.packed.codes, self.packed.signs, scale, self.packed.inputs
        )
        apply_shifts(model, [edit], "test")
        return model

    def real(self) -> Array:
        """Exact results, float64, channels last."""
        return np.asarray(self.sums * self.factors + self.bias)

    def last(self, y: Array) -> Array:
        """Results of an engine with channels last."""
        return y.transpose(0, 2, 3, 1) if self.conv else y


def run_onnx(drawn: Drawn) -> Array:
    target = load_target("onnx")
    unpack_shifts(drawn.model, target, "w8a8")
    options = LowerOptions("w8a8", "source", "m")
    content = OnnxBackend().lower(drawn.model, target, options).files["m.onnx"]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": drawn.x})[0])


@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_onnx_runtime_computes_the_integer_sums(seed: int, wide: bool, conv: bool) -> None:
    drawn = Drawn(seed, wide=wide, conv=conv, zero=120, made=0)
    # Exact in float32: 255 |q| summed for unsigned codes, bias included.
    reach = 255 * np.abs(decoded(drawn.packed)).sum(axis=0).max() * 2
    if reach >= 2**24:
        return
    assert np.array_equal(drawn.last(run_onnx(drawn)), drawn.real())


def test_a_flipped_sign_is_seen() -> None:
    drawn = Drawn(5, wide=False, conv=False, zero=120, made=0)
    node = next(n for n in drawn.model.graph if n.op_type == "ShiftLinear")
    value = node.inputs[1]
    assert value is not None
    wrong = drawn.packed.codes.copy()
    wrong[0, 0, 0] ^= 8  # the sign of the first term of the first weight
    if not wrong[0, 0, 0] & 7:
        wrong[0, 0, 0] ^= 1
    value.const_value = ir.tensor(wrong)
    assert not np.array_equal(drawn.last(run_onnx(drawn)), drawn.real())


def test_litert_computes_the_integer_sums() -> None:
    """Codes in, codes out: linear layers and convolutions of random shapes."""
    drawn = [Drawn(s, wide=False, conv=s % 2 == 0, zero=0, made=2.0) for s in range(24)]
    target = load_target("linux-x86")
    jobs = []
    for one in drawn:
        unpack_shifts(one.model, target, "w8a8")
        jobs.append((lower_litert(one.model, "w8a8"), {"x": one.x}))
    for one, result in zip(drawn, run_all(jobs, "BUILTIN_REF"), strict=True):
        assert not result.error
        assert any("CONV" in o or "FULLY" in o for o in result.operators), result.operators
        total = one.sums + np.rint(one.bias / one.factors).astype(np.int64)
        codes = np.clip(requantize(total, one.factors / 2.0), -128, 127)
        (y,) = result.outputs.values()
        assert np.array_equal(one.last(y), codes * 2.0)


@pytest.mark.parametrize("wide", [False, True])
def test_coreml_computes_the_integer_sums(wide: bool, tmp_path: Path) -> None:
    """The evaluator sums float16 numbers in float32: exact, then stored in float16."""
    for seed in range(4):
        drawn = Drawn(seed + 40, wide=wide, conv=seed % 2 == 0, zero=0, made=0)
        reach = 127 * np.abs(decoded(drawn.packed)).sum(axis=0).max() * 2
        unpack_shifts(drawn.model, load_target("iphone-npu"), "w8a8")
        found = run_package(lower_coreml(drawn.model, "w8a8"), drawn.x, tmp_path / str(seed))
        exact = drawn.real()
        if reach < 2**24 and not wide:
            product = (drawn.sums * drawn.factors).astype(np.float16).astype(np.float64)
            # The bias of a linear layer is an addition of its own, stored once more.
            true = exact if drawn.conv else product + drawn.bias
            assert np.array_equal(drawn.last(found), true.astype(np.float16))
        else:
            # Weights of 15 bits are rounded to float16's 11, and every sum once more.
            limit = 2.0**-11 * (np.abs(exact) + 100 * READ * _absolute(drawn))
            assert np.all(np.abs(drawn.last(found) - exact) <= limit)


def _absolute(drawn: Drawn) -> Array:
    """``sum |w|`` of every channel."""
    total: Array = np.abs(decoded(drawn.packed)).sum(axis=0) * drawn.factors / READ
    return total


def run_package(lowered: Any, x: Array, folder: Path) -> Array:
    for path, content in lowered.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    with CoreMLEngine().open(
        folder / lowered.part.artifact, lowered.part, threads=1
    ) as opened:
        made = opened.run({lowered.part.inputs[0].artifact: x})
    found: Array = np.asarray(next(iter(made.values())))
    return found
