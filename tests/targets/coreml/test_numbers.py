"""Each operator's saved program, run in the evaluator, against ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit.backend import Lowered
from edgevit.bundle import Binding
from edgevit.runtimes.coreml import CoreMLEngine
from tests.targets.coreml.harness import Array, Case, lower, write
from tests.targets.coreml.test_operators import CASES
from tests.targets.coreml.test_package import small

NUMERIC = [*CASES, replace(small(), name="Small", reach=64, roundings=40)]

# Unit roundoffs: half the distance of neighbors at 1.
U32, U16 = 2.0**-24, 2.0**-11


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Array]]:
    """Case name -> output name -> what ONNX Runtime computes, in one child process."""
    folder = tmp_path_factory.mktemp("ort")
    for case in NUMERIC:
        (folder / f"{case.name}.onnx").write_bytes(case.proto().SerializeToString())
        feeds: dict[str, Any] = {**case.feeds()}
        np.savez(folder / f"{case.name}.npz", **feeds)
    worker = Path(__file__).parent / "ort_worker.py"
    subprocess.run([sys.executable, str(worker), str(folder)], check=True)
    results = {}
    for case in NUMERIC:
        with np.load(folder / f"{case.name}.out.npz") as data:
            results[case.name] = dict(data)
    return results


def to_artifact(binding: Binding, array: Array) -> Array:
    moved = array if binding.perm is None else array.transpose(binding.perm)
    return moved.reshape(binding.artifact_shape).astype(binding.artifact_dtype)


def run(lowered: Lowered, feeds: dict[str, Array], folder: Path) -> dict[str, Array]:
    """Source output name -> array of the source's shape and dtype."""
    package = write(lowered, folder)
    given = {b.artifact: to_artifact(b, feeds[b.name]) for b in lowered.part.inputs}
    with CoreMLEngine().open(package, lowered.part, threads=None) as executor:
        found = executor.run(given)
    return {
        b.name: found[b.artifact].reshape(b.shape).astype(b.dtype)
        for b in lowered.part.outputs
    }


def excess(found: Array, reference: Array, limit: float) -> float:
    """Largest error over the limit times max|reference|; at most 1 passes."""
    assert found.shape == reference.shape
    assert found.dtype == reference.dtype
    if found.dtype.kind != "f":
        return float("inf") if np.any(found != reference) else 0.0
    assert np.isfinite(reference).all()
    scale = float(np.abs(reference).max())
    assert scale > 0, "a dead output shows nothing"
    error = np.abs(found.astype(np.float64) - reference.astype(np.float64)).max()
    return float(error / (limit * scale))


def float32_limit(case: Case) -> float:
    """A sum of n terms in any order errs by n u sum|terms| (Higham, 2002, eq. 4.4).

    sum|terms| is at most 8 max|y| on these inputs; 16 u covers one transcendental function.
    """
    return (8 * case.reach + 16) * U32


@pytest.mark.parametrize("case", NUMERIC, ids=lambda c: c.name)
def test_float32(case: Case, expected: dict[str, dict[str, Array]], tmp_path: Path) -> None:
    found = run(lower(case.model(), "fp32"), case.feeds(), tmp_path)
    for name, reference in expected[case.name].items():
        assert excess(found[name], reference, float32_limit(case)) <= 1


@pytest.mark.parametrize("case", NUMERIC, ids=lambda c: c.name)
def test_float16(case: Case, expected: dict[str, dict[str, Array]], tmp_path: Path) -> None:
    """Inputs and constants are float16 numbers: each rounding adds u, weighted by growth."""
    found = run(lower(case.model(), "fp16"), case.feeds(), tmp_path)
    for name, reference in expected[case.name].items():
        limit = case.roundings * U16 * 1.01 + float32_limit(case)
        assert excess(found[name], reference, limit) <= 1


@pytest.mark.parametrize("case", NUMERIC, ids=lambda c: c.name)
def test_the_oracle_rejects_mutants(case: Case, expected: dict[str, dict[str, Array]]) -> None:
    """One percent, an offset of a hundredth and a reversal are all seen in float32."""
    for reference in expected[case.name].values():
        if reference.dtype.kind != "f":
            assert excess((reference ^ 1).astype(reference.dtype), reference, 1.0) > 1
            continue
        step = np.float32(np.abs(reference).max() / 100)
        mutants = [reference * np.float32(1.01), reference + step]
        if np.ptp(reference) > 0:
            mutants.append(np.flip(reference))
        for mutant in mutants:
            assert excess(mutant, reference, float32_limit(case)) > 1
