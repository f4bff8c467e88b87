"""One transposition in front of a split instead of one behind each part."""

from __future__ import annotations

import pytest

from edgevit.passes.order import canonicalize
from tests.passes.cases import Case, Refusal, load
from tests.passes.harness import build, i64, operators

SPEC = "join-transposes"
THREE = "a, b, c = Split <axis = 2> (x, sizes)\n"
HEADS = {"sizes": i64(8, 8, 8), "heads": i64(1, 5, 2, 4)}
QKV = "float[1,5,24] x => float[1,2,5,4] q, float[1,2,5,4] k, float[1,2,5,4] v"


def _part(source: str, out: str, heads: str = "heads", perm: str = "0,2,1,3") -> str:
    return (
        f"r{out} = Reshape({source}, {heads})\n{out} = Transpose <perm = [{perm}]> (r{out})\n"
    )


JOINED = THREE + _part("a", "q") + _part("b", "k") + _part("c", "v")
MAKES = "Reshape Transpose Split "
CASES = [
    Case("query-key-value", SPEC, QKV, JOINED, MAKES + "Reshape " * 3, HEADS),
    Case("key-value-of-a-batch", SPEC,
         "float[3,5,16] x => float[3,2,5,4] k, float[3,2,5,4] v",
         "a, b = Split <axis = 2> (x, sizes)\n" + _part("a", "k") + _part("b", "v"),
         MAKES + "Reshape " * 2, {"sizes": i64(8, 8), "heads": i64(3, 5, 2, 4)}),
    Case("keys-turned", SPEC, "float[1,5,16] x => float[1,2,4,5] k, float[1,2,4,5] v",
         "a, b = Split <axis = 2> (x, sizes)\n"
         + _part("a", "k", perm="0,2,3,1") + _part("b", "v", perm="0,2,3,1"),
         MAKES + "Reshape " * 2, {"sizes": i64(8, 8), "heads": i64(1, 5, 2, 4)}),
    Case("no-axis-is-the-first", SPEC, "float[4,2,1] x => float[1,2,2] k, float[1,2,2] v",
         "a, b = Split (x, sizes)\n"
         + _part("a", "k", perm="2,0,1") + _part("b", "v", perm="2,0,1"),
         MAKES + "Reshape " * 2, {"sizes": i64(2, 2), "heads": i64(2, 2, 1)}, before=()),
    Case("channels-first", SPEC, "float[2,16,3,5] x => float[2,2,15,4] k, float[2,2,15,4] v",
         "a, b = Split <axis = 1> (x, sizes)\n"
         + _part("a", "k", perm="0,1,3,2") + _part("b", "v", perm="0,1,3,2"),
         MAKES + "Reshape " * 2, {"sizes": i64(8, 8), "heads": i64(2, 2, 4, 15)}),
]  # fmt: skip
REFUSALS = [
    Refusal("sizes", SPEC, "float[1,5,16] x => float[1,1,5,4] k, float[1,3,5,4] v",
            "a, b = Split <axis = 2> (x, sizes)\n"
            + _part("a", "k", "one") + _part("b", "v", "two"), "differ in size",
            {"sizes": i64(4, 12), "one": i64(1, 5, 1, 4), "two": i64(1, 5, 3, 4)}),
    Refusal("shapes", SPEC, "float[1,5,16] x => float[1,2,5,4] k, float[1,4,5,2] v",
            "a, b = Split <axis = 2> (x, sizes)\n"
            + _part("a", "k", "one") + _part("b", "v", "two"), "how they are moved",
            {"sizes": i64(8, 8), "one": i64(1, 5, 2, 4), "two": i64(1, 5, 4, 2)}),
    Refusal("permutations", SPEC, "float[1,5,16] x => float[1,2,5,4] q, float[1,2,4,5] k",
            "a, b = Split <axis = 2> (x, sizes)\n"
            + _part("a", "q") + _part("b", "k", perm="0,2,3,1"), "how they are moved",
            {"sizes": i64(8, 8), "heads": i64(1, 5, 2, 4)}),
    Refusal("axes-mixed", SPEC, "float[1,6,16] x => float[1,12,4,1] k, float[1,12,4,1] v",
            "a, b = Split <axis = 2> (x, sizes)\n"
            + _part("a", "k", perm="3,2,1,0") + _part("b", "v", perm="3,2,1,0"), "mixes",
            {"sizes": i64(8, 8), "heads": i64(1, 4, 12, 1)}),
    Refusal("part-with-readers", SPEC, QKV + ", float[1,5,8] z",
            JOINED + "z = Neg(b)", "", HEADS),
    Refusal("reshaped-with-readers", SPEC, QKV + ", float[1,5,2,4] z",
            JOINED + "z = Neg(rk)", "", HEADS),
    Refusal("part-not-moved", SPEC,
            "float[1,5,16] x => float[1,2,5,4] k, float[1,5,8] v",
            "a, b = Split <axis = 2> (x, sizes)\n" + _part("a", "k") + "v = Neg(b)\n", "",
            {"sizes": i64(8, 8), "heads": i64(1, 5, 2, 4)}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_rewrites(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("case", REFUSALS, ids=lambda c: c.name)
def test_leaves_alone(case: Refusal) -> None:
    case.check()


def test_canonicalization_undoes_it() -> None:
    """What the pass writes is one of the forms that exporters write."""
    model = build(QKV, JOINED, HEADS)
    canonicalize(model)
    before = operators(model)
    assert load(SPEC)(model).modified
    assert operators(model) != before
    canonicalize(model)
    assert operators(model) == before
