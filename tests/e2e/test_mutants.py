"""Twelve faults on three backends: each far above the gate, caught, and named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import FAULTS

ROOT = Path(__file__).parents[2]
BACKENDS = ("onnx", "litert", "coreml")
GATE = 1e-4


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], dict[str, Any]]:
    """(fault, backend) -> what verification said."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mutants", "--json", "--float32-only"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)["rows"]
    assert Counter(r["precision"] for r in found) == {"fp32": len(FAULTS) * len(BACKENDS)}
    return {(r["fault"], r["backend"]): r for r in found}


def test_there_are_the_twelve_faults_of_the_issue() -> None:
    assert list(FAULTS) == [
        "swapped operands",
        "dropped bias",
        "wrong axis",
        "transposed heads",
        "epsilon lost",
        "scale 1.01",
        "tanh for erf GELU",
        "padding off by one",
        "wrong group count",
        "reversed concat",
        "wrong broadcast",
        "stale weight",
    ]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_and_named(
    rows: dict[tuple[str, str], dict[str, Any]], fault: str, backend: str
) -> None:
    row = rows[fault, backend]
    assert row["effect"] >= 10 * GATE, "the fixture must show the fault in the output"
    assert row["gate"], "the whole-network gate missed it"
    assert row["replay"], "the per-node replay missed it"
    assert row["named"] in row["group"]
    assert row["expected"] in row["group"], f"{row['named']!r} was named instead"
    assert row["node"] in row["nodes"], "the source node that a user reads is another one"
    # A group is what one native operator computes: naming half the network is no answer.
    # The longest is an attention's way out in the neural-engine layout: transpose, reshape,
    # projection and bias become one convolution.
    assert len(row["group"]) <= 4


_NO_FAULT = """
import sys
from benchmarks import mutants
sound = [mutants.check(b, "fp32", "none", lambda model: "logits", 0.0) for b in sys.argv[1:]]
print([(r.gate, r.replay) for r in sound])
"""


def test_without_a_fault_nothing_is_reported() -> None:
    """The oracle is not simply always red."""
    done = subprocess.run(
        [sys.executable, "-c", _NO_FAULT, *BACKENDS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str([(False, False)] * len(BACKENDS))
