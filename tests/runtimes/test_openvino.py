"""The OpenVINO engine: same numbers as ONNX Runtime, integer kernels where it is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.backend import LowerOptions
from edgevit.runtimes.openvino import OpenVINOEngine
from edgevit.target import load_target
from edgevit.targets.onnx.lower import OnnxBackend
from tests.support.graphs import GraphBuilder, feeds_for, run_reference
from tests.support.quantized import QuantizedBuilder

Array = np.ndarray[Any, Any]
_WORKER = Path(__file__).with_name("openvino_worker.py")
_ROOT = Path(__file__).parents[2]
_SITES = sorted(_ROOT.glob(".venv-openvino/lib/python3.*/site-packages/openvino"))
_CPU = Path("/proc/cpuinfo")
_VNNI = _CPU.exists() and "avx512_vnni" in _CPU.read_text(encoding="utf-8")
needs_openvino = pytest.mark.skipif(
    not (_SITES or OpenVINOEngine().probe().ok), reason="make openvino-env installs OpenVINO"
)


def _run(model: ir.Model, precision: str, folder: Path) -> tuple[dict[str, Array], list[Any]]:
    """Outputs, and (layer type, precision) of the layers as OpenVINO runs them."""
    target = load_target("linux-x86:engine=openvino")
    options = LowerOptions(precision, "source", "m")
    lowered = OnnxBackend().lower(model, target, options)
    assert lowered.part.engine == "openvino"
    artifact, before, after = (folder / n for n in ("m.onnx", "in.npz", "out.npz"))
    artifact.write_bytes(lowered.files["m.onnx"])
    np.savez(before, **feeds_for(model))  # type: ignore[arg-type]
    path = os.pathsep.join([str(_ROOT), *(str(s.parent) for s in _SITES)])
    command = [sys.executable, str(_WORKER), str(artifact), str(before), str(after)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    with np.load(after) as data:
        return {name: data[name] for name in data.files}, json.loads(done.stdout)


def test_the_override_chooses_the_engine() -> None:
    chosen = load_target("linux-x86:engine=openvino")
    assert (chosen.name, chosen.engine) == ("linux-x86-openvino", "openvino")
    assert chosen.backend == "onnx"
    assert load_target("linux-x86").engine == "litert"


@needs_openvino
def test_floats_equal_onnxruntime_and_functions_are_inlined(tmp_path: Path) -> None:
    g = GraphBuilder()
    x = g.input("x", (1, 3, 8, 8))
    weight = g.const(np.random.default_rng(1).standard_normal((4, 3, 3, 3)))
    y = g.op("Conv", x, weight, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4,
             dilations=[1, 1], group=1)  # fmt: skip
    g.op("Relu", g.like(g.silu(y), (1, 4, 8, 8)), out="y")
    model = g.model("y")
    found, _ = _run(model, "fp32", tmp_path)
    reference = run_reference(model, feeds_for(model))["y"]
    # Sums of 27 products in any order, then a function good to a few ulps.
    limit = 4 * 27 * 2.0**-24 * np.abs(reference).max()
    assert np.abs(found["y"] - reference).max() <= limit


@needs_openvino
def test_quantized_layers_run_in_integer_kernels(tmp_path: Path) -> None:
    """Weights of 7 bits: without VNNI, sums of two products saturate in 16 bits."""
    g = QuantizedBuilder()
    x = g.pair(g.input("x", (1, 8, 8, 8)), (0.03, 120), np.uint8)
    weight = g.stored((16, 8, 3, 3), 0, bits=7)
    y = g.op("Conv", x, weight, kernel_shape=[3, 3], strides=[1, 1],
             pads=[1] * 4, dilations=[1, 1], group=1)  # fmt: skip
    rows = g.op("Transpose", g.op("Reshape", y, g.ints([1, 16, 64])), perm=[0, 2, 1])
    codes = g.pair(rows, (0.15, 128), np.uint8)
    g.op("MatMul", codes, g.stored((16, 12), 1, seed=2, bits=7), out="y")
    model = g.model("y")
    found, layers = _run(model, "w8a8", tmp_path)
    reference = run_reference(model, feeds_for(model))["y"]
    # A code at a tie may be rounded the other way: one step of the second quantizer, through
    # a weight of at most 1.5; few are, and no row has more than a few of them.
    off = np.abs(found["y"] - reference)
    assert off.max() <= 4 * 0.15 * 1.5
    assert np.mean(off > 1e-4) <= 0.1
    assert np.abs(reference).max() > 5
    kinds = {"Convolution", "FullyConnected", "MatMul"}
    precisions = {kind: precision for kind, precision in layers if kind in kinds}
    assert len(precisions) == 2, layers
    assert set(precisions.values()) <= {"u8", "i8"}


@needs_openvino
def test_a_layer_behind_moved_codes_is_multiplied_as_integers(tmp_path: Path) -> None:
    g = QuantizedBuilder()
    codes = g.quantize(g.input("x", (1, 32, 16)), (0.05, 3), out="codes")
    moved = g.op("Transpose", codes, perm=[0, 2, 1], out="moved")
    numbers = g.dequantize(moved, (0.05, 3), out="numbers")
    model = g.model(g.op("MatMul", numbers, g.stored((32, 24), 1), out="y"))
    found, layers = _run(model, "w8a8", tmp_path)
    reference = run_reference(model, feeds_for(model))["y"]
    # Sums of codes are exact, the reference sums 32 floats; a code at a tie touches one row.
    limit = 32 * 2.0**-24 * 4 * float(np.abs(reference).max())
    assert np.mean(np.abs(found["y"] - reference) > limit) <= 1 / 16
    assert {p for kind, p in layers if kind in ("FullyConnected", "MatMul")} <= {"u8", "i8"}


@needs_openvino
def test_inputs_of_stored_weights_are_not_rounded(tmp_path: Path) -> None:
    """By default the engine rounds them to 8 bits, group by group: 1e-3 of the result."""
    g = QuantizedBuilder()
    x = g.input("x", (1, 64, 256))
    model = g.model(g.op("MatMul", x, g.stored((256, 128), 1), out="y"))
    found, _ = _run(model, "w8", tmp_path)
    reference = run_reference(model, feeds_for(model))["y"]
    limit = 256 * 2.0**-24 * 4 * float(np.abs(reference).max())
    assert np.abs(found["y"] - reference).max() <= limit


def _attention(dtype: type[np.generic], zero: int) -> ir.Model:
    g = QuantizedBuilder()
    q, k, v = (g.input(name, (1, 2, 32, 16)) for name in "qkv")
    codes = [g.pair(x, (0.01, zero), dtype) for x in (q, k)]
    return g.model(g.op("Attention", *codes, v, out="y", scale=0.25))


@needs_openvino
@pytest.mark.skipif(not _VNNI, reason="the engine fuses attention where AVX512 is")
@pytest.mark.parametrize(
    ("dtype", "zero", "integers"), [(np.int8, 0, True), (np.uint8, 128, False)]
)
def test_signed_queries_and_keys_are_multiplied_as_integers(
    dtype: type[np.generic], zero: int, integers: bool, tmp_path: Path
) -> None:
    """Unsigned ones are not: the device file's scheme asks for signed ones."""
    model = _attention(dtype, zero)
    found, layers = _run(model, "w8a8", tmp_path)
    reference = run_reference(model, feeds_for(model))["y"]
    # Scores are exact sums of codes, at most 6.5, scaled; 32 weights follow their roundings
    # and the exponential's, good to a few ulps.
    limit = 2.0**-24 * (8 * 6.5 + 32) * 4
    assert np.abs(found["y"] - reference).max() <= limit * np.abs(reference).max()
    kinds = [precision for kind, precision in layers if kind in ("Subgraph", "MatMul")]
    assert ("i8" in kinds) == integers, layers
