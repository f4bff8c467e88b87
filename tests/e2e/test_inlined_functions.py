"""A backend that does not know a function of ours gets its body: whole compiles, verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.optical_exactness import find
from edgevit import api

LONG = pytest.mark.long
CASES = (
    ("trained-convshare", "convshare_valid", "linux-x86", "SharedConv"),
    pytest.param(
        "trained-convshare", "convshare_valid", "iphone-npu", "SharedConv", marks=LONG
    ),
    pytest.param(
        *("trained-convshare", "convshare_valid", "linux-x86-tvm", "SharedConv"), marks=LONG
    ),
    pytest.param(
        *("mark-optical", "fashion_hybrid_ts", "linux-x86", "OpticalConv+OpticalLinear"),
        marks=LONG,
    ),
    pytest.param(
        *("mark-optical", "fashion_hybrid_ts", "iphone-npu", "OpticalConv+OpticalLinear"),
        marks=LONG,
    ),
    pytest.param(
        *("mark-optical", "fashion_hybrid_ts", "linux-x86-tvm", "OpticalConv+OpticalLinear"),
        marks=LONG,
    ),
)


@pytest.mark.parametrize(("passes", "model", "target", "functions"), CASES)
def test_marked_models_compile_and_verify_again(
    passes: str, model: str, target: str, functions: str, tmp_path: Path
) -> None:
    out = tmp_path / "made.edgevit"
    made = api.compile(find(model), target=target, passes=passes, output=out)
    specs = [p.spec for p in made.manifest.passes]
    at = specs.index(passes)
    assert specs[at + 1] == f"inline-functions{{functions={functions}}}"
    assert made.result["coverage"]["fallback"] == []
    again = api.verify(out, find(model), trust=True)
    assert again["pass"]
    assert again["parity"] == made.result["parity"]


def test_onnx_runtime_keeps_the_function(tmp_path: Path) -> None:
    made = api.compile(
        find("convshare_valid"),
        target="onnx",
        passes="trained-convshare",
        output=tmp_path / "made.edgevit",
    )
    assert made.manifest.passes[-1].spec == "trained-convshare"
