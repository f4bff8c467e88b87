"""CUDA code: the source that is compiled, run on the processor, against ONNX Runtime."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgevit.targets.tvm.gpu.compiler import compiler, ptx
from edgevit.targets.tvm.gpu.device import GPUS
from edgevit.targets.tvm.gpu.product import TILINGS, tiling
from tests.support.cli import FIXTURES, edgevit
from tests.support.cuda import lower_gpu, run_gpu
from tests.support.graphs import feeds_for, run_reference
from tests.targets.tvm.test_operators import (
    _POLYNOMIAL,
    BASIC,
    EVERY,
    REFUSED,
    _check,
    _model,
    distance,
)

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
Array = np.ndarray[Any, Any]
MODEL = FIXTURES / "models" / "fashion_vit_ts.onnx"


class _Found:
    def __init__(self, outputs: dict[str, Array]) -> None:
        self.outputs, self.error = outputs, ""


def _compare(names: list[str]) -> None:
    jobs, expected = [], []
    for name in names:
        model = _model(EVERY[name])
        feeds = feeds_for(model)
        expected.append(run_reference(model, feeds))
        jobs.append((lower_gpu(model), feeds))
    for name, outputs, reference in zip(names, run_gpu(jobs), expected, strict=True):
        _check(name, _Found(outputs), reference)  # type: ignore[arg-type]


def test_operators_equal_onnxruntime() -> None:
    _compare(list(BASIC))


@pytest.mark.long
def test_every_case_equals_onnxruntime() -> None:
    _compare([n for n in EVERY if n not in REFUSED])


def _product() -> tuple[Any, dict[str, Array]]:
    """197 x 48 times 48 x 71, with a bias: tails on every side, groups of threads."""
    from tests.support.quantized import QuantizedBuilder

    graph = QuantizedBuilder()
    rng = np.random.default_rng(3)
    x = graph.input("x", (1, 197, 48))
    w = graph.const(rng.standard_normal((48, 71)))
    b = graph.const(rng.standard_normal(71))
    y = graph.op("Add", graph.op("MatMul", x, w), b)
    model = graph.model(y)
    return model, feeds_for(model)


MUTANTS: dict[str, Callable[[str], str]] = {
    "sums are not cleared": lambda s: s.replace("= 0x0p+0f", "= 0x1p+0f"),
    "a barrier is missing": lambda s: s.replace("__syncthreads();", "", 1),
    "the bias is one column off": lambda s: s.replace("bias[", "bias[1 + "),
}


@pytest.mark.parametrize("name", ["", *MUTANTS])
def test_a_wrong_kernel_is_noticed(name: str) -> None:
    model, feeds = _product()
    lowered = lower_gpu(model)
    source = lowered.files["m.ptx"].decode()
    changed = MUTANTS[name](source) if name else source
    assert (changed != source) == bool(name)
    lowered.files["m.ptx"] = changed.encode()  # type: ignore[index]
    (found,) = run_gpu([(lowered, feeds)])
    (output,) = run_reference(model, feeds).items()
    wrong = distance(found[output[0]], output[1]) > _POLYNOMIAL
    assert wrong == bool(name)


def test_small_outputs_have_small_tiles() -> None:
    assert tiling(4096, 4096, 1, 108) is TILINGS[0]
    assert tiling(197, 192, 1, 108) is TILINGS[-1]
    assert all(t.threads == 256 for t in TILINGS)


@pytest.mark.skipif(not compiler(), reason="no compiler of CUDA")
def test_source_becomes_ptx() -> None:
    source = lower_gpu(_product()[0]).files["m.ptx"].decode()
    code = ptx(source, GPUS["sm_80"])
    assert b".target sm_80" in code
    assert ptx(source, GPUS["sm_80"]) == code


@pytest.mark.skipif(not compiler(), reason="no compiler of CUDA")
def test_what_cannot_run_here_ships_unverified(tmp_path: Any) -> None:
    from edgevit.runtimes.cuda_driver import missing

    if not missing():
        pytest.skip("there is a GPU")
    out = tmp_path / "vit.edgevit"
    ran = edgevit("compile", MODEL, "--target", "nvidia-gpu", "-o", out, cwd=tmp_path)
    assert ran.code == 1
    assert "not verifiable here: no NVIDIA driver" in ran.err
    assert not out.exists()
    ran = edgevit(
        "compile", MODEL, "--target", "nvidia-gpu", "-o", out, "--no-verify", cwd=tmp_path
    )
    assert ran.code == 0, ran.err
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["verified"] is False
    assert manifest["entries"][0]["parts"][0]["engine"] == "cuda"
    ran = edgevit("verify", out, "--trust", cwd=tmp_path)
    assert ran.code == 3
    assert "no NVIDIA driver" in ran.err
