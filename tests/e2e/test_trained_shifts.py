"""Networks trained to shifts: native code multiplies their packed codes, whole compiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgevit import api
from tests.support.trained_shifts import Trained

pytestmark = pytest.mark.long
ALL = {"patches", "first", "second"}


def compiled(
    made: Trained, folder: Path, target: str = "linux-x86-tvm", precision: str = "w8a8"
) -> tuple[Any, set[str], list[str]]:
    """The bundle, the layers that were recovered, and the kernels of native code."""
    model, out = folder / "trained.onnx", folder / "made.edgevit"
    onnx.save(made.proto(), model)
    samples = "synthetic" if precision == "w8a8" else None
    bundle = api.compile(
        model, target=target, precision=precision, calibration=samples, output=out
    )
    assert all(figure["pass"] for figure in bundle.result["parity"].values())
    again = api.verify(out, model, trust=True)
    assert again["pass"]
    assert again["parity"] == bundle.result["parity"]
    entries = [p for p in bundle.manifest.passes if p.spec == "recover-shifts"]
    found = {note.node for entry in entries for note in entry.notes if note.node}
    plans = [json.loads(p.read_text("utf-8"))["kernels"] for p in out.glob("*plan.json")]
    return bundle, found, [kernel for plan in plans for kernel in plan]


@pytest.mark.parametrize(
    ("made", "conv", "linear"),
    [
        (Trained(), "conv_codes", "gemm_codes"),
        pytest.param(Trained(folded=True), "conv_codes", "gemm_codes"),
        pytest.param(Trained(terms=2), "conv_codes", "gemm_codes"),
        pytest.param(Trained(terms=2, wide=True), "conv_shift", "gemm_shift"),
        pytest.param(Trained(terms=3, wide=True, folded=True), "conv_shift", "gemm_shift"),
        # No smaller than int8, and the same sums.
        pytest.param(Trained(terms=3), "conv_int8", "gemm_int8"),
    ],
    ids=str,
)
def test_native_code_has_the_kernels_of_trained_layers(
    made: Trained, conv: str, linear: str, tmp_path: Path
) -> None:
    _, found, kernels = compiled(made, tmp_path)
    products = [k for k in kernels if k.startswith(("conv", "gemm"))]
    assert products == [conv, linear, linear]
    assert found == (set() if conv == "conv_int8" else ALL)


def test_one_unit_in_the_last_place_off_is_another_weight(tmp_path: Path) -> None:
    _, found, kernels = compiled(Trained(folded=True, off=1), tmp_path)
    assert found == {"patches"}
    assert kernels.count("gemm_int8") == 2


def test_floats_are_multiplied_as_floats(tmp_path: Path) -> None:
    bundle, found, kernels = compiled(Trained(), tmp_path, precision="fp32")
    assert found == ALL
    assert kernels.count("gemm") == 2
    texts = [n.text for p in bundle.manifest.passes for n in p.notes if n.node in ALL]
    assert all("floats: float32 products" in text for text in texts)


@pytest.mark.parametrize(
    ("target", "precision"),
    [("linux-x86", "w8a8"), ("onnx", "fp32"), ("linux-x86-tvm", "w8a8-dyn")],
)
def test_other_kernels_get_the_operators(target: str, precision: str, tmp_path: Path) -> None:
    bundle, found, _ = compiled(Trained(), tmp_path, target, precision)
    assert not found
    assert not [p.spec for p in bundle.manifest.passes if "shifts" in p.spec]
