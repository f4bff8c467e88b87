"""The device file: every operator that can be lowered has a predicted place."""

from __future__ import annotations

from edgevit.targets.coreml.table import RULES
from tests.targets.coreml.harness import target


def test_every_lowered_operator_has_a_placement_rule() -> None:
    placed = {op for rule in target().placement for op in rule.ops}
    lowered = {name.rpartition("::")[2] for name in RULES}
    assert lowered - placed == set()
    assert placed - lowered == set()


def test_precision_and_rank_decide_before_the_operator() -> None:
    precision, rank = target().placement[:2]
    assert (precision.precisions, precision.unit, precision.ops) == (("fp32",), "GPU", ())
    assert (rank.min_rank, rank.unit, rank.ops) == (6, "CPU", ())


def test_what_nobody_published_says_so() -> None:
    for rule in target().placement:
        assert ("no list is published" in rule.source) == (rule.confidence == "estimated")
