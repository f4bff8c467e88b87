"""The zoo benchmark's judgments: what is kept, what is asked of a model, what is a miss."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.corpus.store import sha256
from benchmarks.five.cases import BACKENDS, NATIVE, columns
from benchmarks.five.cells import Cell
from benchmarks.zoo import _cells, _is_current
from benchmarks.zoo_cases import ZooCase, zoo_cases
from benchmarks.zoo_cells import Record, Store, _misses
from benchmarks.zoo_code import code_digest
from benchmarks.zoo_page import HEAD, markdown, page, rows
from benchmarks.zoo_tasks import upscale

FIGURES = {
    "coverage": 1.0, "transposes": 3, "size": 2_500_000, "seconds": 4.25, "metric": "max_rel",
    "value": 2.5e-6, "limit": 1e-4,
}  # fmt: skip
FORM = {"before": 1485, "after": 294, "blocks": {"Attention": 12, "Gelu": 12}, "unknown": []}


def options(redo: str = "none", resume: bool = False) -> argparse.Namespace:
    return argparse.Namespace(redo=redo, resume=resume, samples=1000)


def case_of(path: Path, **fields: bool) -> ZooCase:
    path.write_bytes(b"a model")
    return ZooCase("m", lambda: path, **fields)  # type: ignore[arg-type]


def record(path: Path) -> Record:
    return Record("m", "form", sha256(path), "", False, FORM)


def test_a_cell_is_kept_for_the_same_file_and_code(tmp_path: Path) -> None:
    case = case_of(tmp_path / "m.onnx")
    kept = record(case.find())
    assert kept.code == code_digest()
    assert _is_current(case, kept, options())
    assert not _is_current(case, None, options())
    assert not _is_current(case, kept, options(redo="all"))


def test_a_cell_of_another_file_or_code_is_measured_again(tmp_path: Path) -> None:
    case = case_of(tmp_path / "m.onnx")
    kept = record(case.find())
    assert not _is_current(case, replace(kept, source="0" * 64), options(resume=True))
    old = replace(kept, code="another")
    assert not _is_current(case, old, options())
    assert _is_current(case, old, options(resume=True))


def test_an_accuracy_of_fewer_images_is_measured_again(tmp_path: Path) -> None:
    case = case_of(tmp_path / "m.onnx")
    kept = replace(record(case.find()), what="accuracy onnx fp32", figures={"samples": 1000})
    assert _is_current(case, kept, options())
    assert not _is_current(case, replace(kept, figures={"samples": 40}), options())


def test_a_failure_is_kept_unless_it_is_asked_for(tmp_path: Path) -> None:
    case = case_of(tmp_path / "m.onnx")
    failed = replace(record(case.find()), error="12 Gelu")
    assert _is_current(case, failed, options())
    assert not _is_current(case, failed, options(redo="failed"))
    assert not _is_current(case, replace(failed, skipped=True), options())


def test_the_store_gives_the_last_record_and_reads_old_ones(tmp_path: Path) -> None:
    store = Store(tmp_path / "cells.jsonl")
    assert store.read() == {}
    first = record(case_of(tmp_path / "m.onnx").find())
    store.add(first)
    store.add(replace(first, error="later"))
    assert store.read()[("m", "form")].error == "later"
    store.path.write_text(store.path.read_text().replace(f', "code": "{first.code}"', ""))
    assert store.read()[("m", "form")].code == ""


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        ({}, ["onnx fp32", "litert fp32", "coreml fp16"]),
        ({"wide": True}, ["onnx fp32", "litert fp32", "coreml fp32", "coreml fp16"]),
        ({"narrow": False}, ["onnx fp32", "litert fp32", "coreml fp32"]),
    ],
)
def test_core_ml_runs_in_the_precisions_that_a_model_allows(
    tmp_path: Path, fields: dict[str, bool], labels: list[str]
) -> None:
    case = case_of(tmp_path / "m.onnx", **fields)
    asked = ["form", *(f"compile {label}" for label in labels)]
    assert [what for _, what in _cells(case, BACKENDS, 1000)] == asked


def test_accuracy_is_asked_of_trained_models_on_each_backend(tmp_path: Path) -> None:
    trained = case_of(tmp_path / "m.onnx", trained=True)
    asked = [what for _, what in _cells(trained, BACKENDS, 1000)]
    assert asked[-3:] == [f"accuracy {s}" for s in ("onnx fp32", "litert fp32", "coreml fp16")]
    assert not any("accuracy" in what for _, what in _cells(trained, BACKENDS, 0))


def test_native_code_is_a_column_that_is_asked_for() -> None:
    assert columns([]) == BACKENDS
    assert columns(["tvm"]) == NATIVE
    assert [s.label for s in columns(["litert", "tvm"])] == ["litert fp32", "tvm fp32"]


def test_one_export_a_model_is_the_first_that_exists() -> None:
    names = [c.name for c in zoo_cases(Path("nowhere"), once=True)]
    assert {"deit_tiny_patch16_224_ts", "hiera_tiny_224_ts", "volo_d1_224_dynamo"} <= {*names}
    exported = [n for n in names if n.endswith(("_ts", "_dynamo"))]
    assert len(exported) == len({n.rpartition("_")[0] for n in exported}) > 10
    assert "deit_tiny_patch16_224_dynamo" not in names


@pytest.mark.parametrize(("stored", "misses"), [(5_050_000, 0), (5_050_001, 1)])
def test_code_that_is_larger_than_its_weights_allow_is_a_miss(
    stored: int, misses: int
) -> None:
    cell = Cell(
        "m", "tvm fp32", "", 1.0, 0, 0, 1.0, "max_rel", 0.0, 1.0, "", "", stored, 10**6
    )
    assert len(cell.misses()) == misses


def test_lost_blocks_and_too_many_nodes_are_misses() -> None:
    (case,) = (c for c in zoo_cases(Path("nowhere")) if c.name == "vit_s_focus")
    good = {**FORM, "blocks": {"Attention": 12, "LayerNormalization": 25, "Gelu": 12}}
    assert _misses(case, good) == ""
    assert _misses(case, FORM) == "0 LayerNormalization, expected 25"
    assert _misses(case, {**good, "after": 301}) == "301 canonical nodes, expected at most 300"


def test_tables_have_every_measured_cell_and_every_failure() -> None:
    form = Record("m", "form", "", "", False, FORM)
    cell = Record("m", "compile onnx fp32", "", "", False, FIGURES, "0123456789ab")
    bad = Record("m", "accuracy onnx fp32", "", "unequal", False,
                 {"samples": 10, "source": 0.9, "artifact": 0.8})  # fmt: skip
    found = {(r.model, r.what): r for r in (form, cell, bad)}
    (row,) = rows(found, [*found, ("m", "compile litert fp32")])
    assert len(row) == len(HEAD)
    assert row[-2:] == ("0123456789ab", "FAIL")
    assert "0.800, source 0.900 (n=10)" in row
    assert "max_rel 2.5e-06" in markdown([row], []).splitlines()[2]
    assert markdown([], ["a <b>"]).endswith("- a <b>\n")
    assert "a &lt;b&gt;" in page([row], ["a <b>"])
    assert "1 artifacts, 0 misses" in page([row], [])
    assert "<h2>" not in page([row], [])


def test_images_are_upscaled_and_normalized() -> None:
    white = np.full((28, 28), 255, np.uint8)
    found = upscale(white, (32, 48))
    assert found.shape == (1, 3, 32, 48)
    np.testing.assert_allclose(found, (1 - 0.286) / 0.353, rtol=2.0**-20)
