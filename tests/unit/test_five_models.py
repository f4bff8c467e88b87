"""The judgments of the acceptance benchmark: each miss is found, and named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.five.canonical import Canonical, canonicalize_case, misses
from benchmarks.five.cases import CASES, choose
from benchmarks.five.cells import Cell
from benchmarks.five_models import canonical_table, cell_table

DEIT = {"Attention": 12, "LayerNormalization": 25, "Gelu": 12}
GOOD = Canonical("deit_tiny_ts", 484, 286, DEIT, 49, (), "s", "d")
CELL = Cell(
    "deit_tiny_ts", "onnx fp32", "", 1.0, 49, 12_080_000, 3.2, "max_rel", 4.6e-6, 1e-4, "", ""
)
BOTH = choose(["deit_tiny"])


def found(twin: Canonical) -> dict[str, Canonical]:
    return {"deit_tiny_ts": GOOD, "deit_tiny_dynamo": twin}


def test_what_reaches_every_figure_misses_nothing() -> None:
    assert misses(BOTH, found(GOOD)) == []
    assert CELL.misses() == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (replace(GOOD, blocks={**DEIT, "Gelu": 11}), "expected 12 Gelu, found 11"),
        (
            replace(GOOD, shape_arithmetic=("gather_3",)),
            "shape arithmetic left: ('gather_3',)",
        ),
        (replace(GOOD, structure="other"), "canonical graph is not that of deit_tiny_ts"),
        (replace(GOOD, digest="other"), "canonical weights are not those of deit_tiny_ts"),
    ],
)
def test_each_miss_of_a_canonical_graph_is_named(changed: Canonical, said: str) -> None:
    (line,) = misses(BOTH, found(changed))
    assert line.startswith("deit_tiny_dynamo: ")
    assert line.endswith(said)


def test_weights_may_differ_where_exporters_fold_batch_norms() -> None:
    cases = choose(["mobilevit"])
    pair = {"mobilevit_xxs_ts": GOOD, "mobilevit_xxs_dynamo": replace(GOOD, digest="other")}
    assert misses(cases, pair) == []


def test_a_failed_gate_and_lost_coverage_are_misses() -> None:
    assert replace(CELL, error="max_rel is 2e-4").misses() == [
        "deit_tiny_ts on onnx fp32: max_rel is 2e-4"
    ]
    (line,) = replace(CELL, coverage=0.995).misses()
    assert line == "deit_tiny_ts on onnx fp32: coverage 99.5%, expected 100 %"


def test_tables_hold_the_figures() -> None:
    row = cell_table([CELL]).splitlines()[2].split("  ")
    assert [c.strip() for c in row if c.strip()] == [
        "deit_tiny_ts",
        "onnx fp32",
        "100 %",
        "49",
        "12.08 MB",
        "3.2",
        "max_rel 4.6e-06",
        "<= 0.0001",
        "pass",
    ]
    assert "12         25         12" in canonical_table([GOOD])


def test_models_are_chosen_by_the_start_of_their_name() -> None:
    assert [c.name for c in choose(["fashion_vit"])] == [
        "fashion_vit_ts",
        "fashion_vit_dynamo",
    ]
    assert choose([]) == CASES
    with pytest.raises(ValueError, match="no model starts with 'resnet'; known: fashion"):
        choose(["resnet"])


def test_exports_of_one_network_have_one_canonical_graph() -> None:
    cases = choose(["fashion_vit"])
    graphs = {case.name: canonicalize_case(case) for case in cases}
    assert misses(cases, graphs) == []
    assert graphs["fashion_vit_ts"].blocks == {
        "Attention": 4,
        "LayerNormalization": 9,
        "Gelu": 4,
    }
