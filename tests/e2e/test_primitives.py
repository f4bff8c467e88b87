"""The auditor and the energy of shift layers, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgevit.energy import ROWS
from tests.support.cli import FIXTURES, edgevit

WAYS = {
    "float32, ours",
    "float32, OpenBLAS",
    "float32, ONNX Runtime",
    "float16, ONNX Runtime",
    "int8, ours",
    "int8, ONNX Runtime",
    "shift codes, 1 term",
    "shifts and additions, 1 term",
}


def two_products(path: Path) -> Path:
    """A model of two equal products and one other."""
    rng = np.random.default_rng(0)
    sizes = {"a": (8, 8), "b": (8, 8), "c": (8, 4)}
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape, np.float32), name)
        for name, shape in sizes.items()
    ]
    names = ["x", "p", "q", "y"]
    nodes = [
        helper.make_node("MatMul", [given, weight], [made])
        for given, weight, made in zip(names[:-1], sizes, names[1:], strict=True)
    ]
    value = helper.make_tensor_value_info
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "products", [value("x", kind, [3, 8])], [value("y", kind, [3, 4])], weights
    )
    opset = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), str(path))
    return path


def test_every_distinct_product_is_timed(tmp_path: Path) -> None:
    model = two_products(tmp_path / "m.onnx")
    ran = edgevit("inspect", model, "--primitives", "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)["result"]["primitives"]
    assert [(p["shape"], p["count"]) for p in found["products"]] == [
        ([3, 8, 8], 2),
        ([3, 8, 4], 1),
    ]
    for product in found["products"]:
        assert set(product["microseconds"]) >= WAYS
        assert min(product["microseconds"].values()) > 0
    assert set(found["energy_uj"]) == set(ROWS)
    assert found["energy_not_counted"] == []


def test_nothing_is_timed_unless_it_is_asked(tmp_path: Path) -> None:
    ran = edgevit("inspect", two_products(tmp_path / "m.onnx"), "--json", cwd=tmp_path)
    assert json.loads(ran.out)["result"]["primitives"] is None


@pytest.mark.long
def test_a_bundle_of_shifts_runs_on_codes_and_reports_its_energy(tmp_path: Path) -> None:
    out = tmp_path / "vit.edgevit"
    passes = "quantize{weights=-1},shiftadd{terms=2}"
    ran = edgevit(
        "compile", FIXTURES / "models" / "fashion_vit_ts.onnx", "--passes", passes,
        "--target", "linux-x86:backend=tvm", "--precision", "w8a8", "--calib", "synthetic",
        "-o", out, cwd=tmp_path,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    kernels = json.loads((out / "model.plan.json").read_text())["kernels"]
    assert kernels.count("gemm_codes") + kernels.count("conv_codes") == 18
    text = edgevit("report", out, cwd=tmp_path).out
    assert "18 layers of shifts, 2.00 terms a weight" in text
    for row in ROWS:
        assert f"\n  {row}: " in text
