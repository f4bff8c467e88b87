"""The record against the views and costs it is made from, on a real network with skips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import pytest

from benchmarks.corpus.store import FIXTURES
from edgevit import registry
from edgevit.bridges import bridges
from edgevit.cost import total_cost
from edgevit.estimate import estimate
from edgevit.loading import load
from edgevit.manifest import CoverageRecord
from edgevit.pagedata import block_cells, class_costs, placement_rows
from edgevit.placement import place
from edgevit.record import Record, read_record, record_of
from edgevit.target import load_target
from edgevit.views import Block, blocks
from tests.support.bundles import manifest, toy_entry


@pytest.fixture(scope="module")
def canonical() -> ir.Model:
    model = load(FIXTURES / "models" / "fashion_hybrid_ts.onnx", {}).model
    run: Any = registry.load_attribute("edgevit.passes.order:canonicalize")
    run(model)
    return model


@pytest.fixture(scope="module")
def record(canonical: ir.Model) -> Record:
    return record_of(canonical, load_target("iphone-npu"), None)


def inside(record: Record, index: int) -> set[int]:
    """A block and all blocks inside it."""
    found = {index}
    for i, block in enumerate(record.blocks):
        if block.parent in found:
            found.add(i)
    return found


def flat(found: Sequence[Block]) -> list[Block]:
    return [b for block in found for b in (block, *flat(block.children))]


def test_each_block_owns_the_nodes_that_the_view_gives_it(
    canonical: ir.Model, record: Record
) -> None:
    seen = flat(blocks(canonical))
    assert [b.kind for b in seen] == [b.kind for b in record.blocks]
    assert any(b.children for b in seen)
    output_of = {str(n.name): str(n.outputs[0].name) for n in canonical.graph}
    assert len(output_of) == len(canonical.graph)
    for index, block in enumerate(seen):
        members = inside(record, index)
        owned = [n.name for n in record.nodes if n.block in members]
        assert owned == [output_of[name] for name in block.nodes]


def test_costs_add_up(canonical: ir.Model, record: Record) -> None:
    total = total_cost(canonical)
    for key in ("macs", "params", "weight_bytes", "moved_bytes"):
        assert sum(getattr(n, key) for n in record.nodes) == getattr(total, key)
        assert sum(getattr(c, key) for c in class_costs(record.nodes)) == getattr(total, key)


def test_units_are_those_of_the_placement(canonical: ir.Model, record: Record) -> None:
    placed = place(canonical, load_target("iphone-npu"))
    assert len(placed) == len(record.nodes)
    for predicted, row in zip(placed, record.nodes, strict=True):
        assert predicted.node == row.name
        found = None if row.rule is None else record.rules[row.rule]
        assert (None if found is None else found.unit) == predicted.unit
        assert found is None or found.name == predicted.rule


def test_every_node_is_in_one_cell_and_one_placement_row(record: Record) -> None:
    coverage = CoverageRecord(len(record.nodes), len(record.nodes), ())
    made = manifest((toy_entry((1, 2)),), coverage=coverage)
    cells = block_cells(record, made)
    assert sum(c.nodes for c in cells) == len(record.nodes)
    assert [c.number for c in cells] == list(range(1, len(cells) + 1))
    assert [c.first for c in cells] == sorted(c.first for c in cells)
    assert sum(r.nodes for r in placement_rows(record, made)) == len(record.nodes)


def test_it_reads_back_equal(record: Record, tmp_path: Any) -> None:
    (tmp_path / "report.json").write_bytes(record.to_bytes())
    assert read_record(tmp_path) == record


def test_without_verification_nothing_was_measured(record: Record) -> None:
    assert {n.ratio for n in record.nodes} == {None}
    assert {n.psnr_db for n in record.nodes} == {None}


def test_bridges_and_estimates_are_those_of_the_compiler(
    canonical: ir.Model, record: Record
) -> None:
    seen = bridges(canonical)
    assert [(b.direction, b.entry, b.exit) for b in seen] == [
        (b.direction, b.entry, b.exit) for b in record.bridges
    ]
    assert seen
    names = [str(n.name) for n in canonical.graph]
    for bridge, row in zip(seen, record.bridges, strict=True):
        assert {names[i] for i in row.nodes} == set(bridge.nodes)
    guess = estimate(canonical, load_target("iphone-npu"), "fp16").latency
    assert guess is not None
    assert record.latency_ms is not None
    assert record.latency_ms.mid == pytest.approx(guess.mid, rel=5e-3)  # three digits


def test_padding_follows_the_tensors_that_were_lowered(canonical: ir.Model) -> None:
    """A tensor of 1 x 1 x 1 x 3 is stored as one of 32; what is not said is the graph's."""
    target = load_target("iphone-npu")
    plain = record_of(canonical, target, None)
    rule = next(
        r for r in target.placement
        if r.align_elements and any(n.rule is not None and plain.rules[n.rule].name == r.name
                                    for n in plain.nodes)
    )  # fmt: skip
    chosen = next(
        n for n in plain.nodes if n.rule is not None and plain.rules[n.rule].name == rule.name
    )
    found = record_of(canonical, target, None, stored={chosen.name: (1, 1, 1, 3)})
    changed = next(n for n in found.nodes if n.name == chosen.name)
    assert rule.align_elements is not None
    assert changed.padding == pytest.approx(rule.align_elements / 3, rel=5e-3)
    others = [(a.name, a.padding) for a in plain.nodes if a.name != chosen.name]
    assert others == [(b.name, b.padding) for b in found.nodes if b.name != chosen.name]
