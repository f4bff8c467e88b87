"""Passes that move data or rename shapes: results are equal bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.passes.hoist_selections import axis_before
from edgevit.passes.normalize_slice import Cut
from tests.passes.cases import Case, Refusal
from tests.passes.harness import i64

X4 = "float[1,3,4,6] x => float[{}] y"

CASES = [
    Case("flatten", "normalize-reshape", "float[2,3,4] x => float[2,12] y",
         "y = Flatten <axis = 1> (x)", "Reshape"),
    Case("minus-one", "normalize-reshape", "float[2,3,4] x => float[2,12] y",
         "y = Reshape(x, s)", "Reshape", {"s": i64(0, -1)}),
    Case("chain", "normalize-reshape", "float[2,3,4] x => float[24,1] y",
         "a = Unsqueeze(x, k)\n b = Reshape(a, s)\n y = Unsqueeze(b, one)",
         "Reshape", {"k": i64(0), "s": i64(-1), "one": i64(1)}),
    Case("noop", "normalize-reshape", "float[2,3,4] x => float[2,3,4] y",
         "a = Tanh(x)\n b = Reshape(a, s)\n y = Tanh(b)", "Tanh Tanh", {"s": i64(0, -1, 4)}),
    Case("default-perm", "normalize-transpose", "float[2,3,4] x => float[4,3,2] y",
         "y = Transpose(x)", "Transpose"),
    Case("composed", "normalize-transpose", "float[2,3,4] x => float[3,4,2] y",
         "a = Transpose <perm = [2,0,1]> (x)\n y = Transpose <perm = [2,0,1]> (a)",
         "Transpose"),
    Case("inverse", "normalize-transpose", "float[2,3,4] x => float[2,3,4] y",
         "a = Transpose <perm = [2,0,1]> (x)\n b = Transpose <perm = [1,2,0]> (a)\n"
         "y = Neg(b)",
         "Neg"),
    Case("ones", "normalize-transpose", "float[1,3,4] x => float[3,1,4] y",
         "y = Transpose <perm = [1,0,2]> (x)", "Reshape"),
    Case("sandwich", "merge-transpose", "float[1,3,4,6] x => float[1,3,6,4] y",
         "a = Reshape(x, s)\n b = Transpose <perm = [0,2,1]> (a)\n y = Reshape(b, t)",
         "Transpose", {"s": i64(3, 4, 6), "t": i64(1, 3, 6, 4)}),
    Case("bounds", "normalize-slice", X4.format("1,3,2,5"),
         "y = Slice(x, s, e, a)", "Slice",
         {"s": i64(-2, 1), "e": i64(2**31, 2**40), "a": i64(2, -1)}),
    Case("backwards", "normalize-slice", X4.format("1,3,4,3"),
         "y = Slice(x, s, e, a, t)", "Slice",
         {"s": i64(-1), "e": i64(-(2**40)), "a": i64(-1), "t": i64(-2)}),
    Case("one-backwards", "normalize-slice", X4.format("1,3,4,1"),
         "y = Slice(x, s, e, a, t)", "Slice",
         {"s": i64(0), "e": i64(-(2**40)), "a": i64(-1), "t": i64(-1)}),
    Case("unit-axis-backwards", "normalize-slice", "float[1,3] x => float[1,3] y",
         "a = Slice(x, s, e, a0, t)\n y = Neg(a)", "Neg",
         {"s": i64(-1), "e": i64(-9), "a0": i64(0), "t": i64(-1)}),
    Case("turned-and-cut", "normalize-slice", X4.format("1,3,4,1"),
         "p = Slice(x, s, e, a, t)\n y = Slice(p, f, s, a)", "Slice",
         {"s": i64(-1), "e": i64(-9), "a": i64(3), "t": i64(-1), "f": i64(-2)}),
    Case("slice-of-slice", "normalize-slice", X4.format("1,3,4,2"),
         "p = Slice(x, s, e, a, t)\n y = Slice(p, s, e, a)", "Slice",
         {"s": i64(1), "e": i64(9), "a": i64(3), "t": i64(2)}),
    Case("num-outputs", "normalize-split", "float[2,7] x => float[2,4] y, float[2,3] z",
         "y, z = Split <axis = -1, num_outputs = 2> (x)", "Split"),
    Case("dead-part", "normalize-split", "float[2,6] x => float[2,2] y",
         "y, z, w = Split <axis = 1, num_outputs = 3> (x)", "Slice"),
    Case("scalar-gather", "normalize-gather", X4.format("1,3,6"),
         "y = Gather <axis = 2> (x, i)", "Slice Reshape", {"i": np.int64(-1)}),
    Case("range-gather", "normalize-gather", X4.format("1,3,2,6"),
         "y = Gather <axis = -2> (x, i)", "Slice", {"i": i64(1, 2)}),
    Case("table-gather", "normalize-gather", X4.format("1,3,2,6"),
         "y = Gather <axis = 2> (x, i)", "Gather", {"i": i64(-1, 0)}),
    Case("partition", "slices-to-split", "float[2,6] x => float[2,2] y, float[2,4] z",
         "z = Slice(x, two, six, a)\n y = Slice(x, zero, two, a)", "Split",
         {"zero": i64(0), "two": i64(2), "six": i64(6), "a": i64(1)}),
    Case("split-above-transpose", "hoist-selections",
         "float[4,6] x => float[3,4] y, float[3,4] z",
         "t = Transpose <perm = [1,0]> (x)\n y, z = Split <axis = 0> (t, s)",
         "Split Transpose Transpose", {"s": i64(3, 3)}, before=()),
    Case("split-above-reshape", "hoist-selections",
         "float[4,6] x => float[4,1,3] y, float[4,1,3] z",
         "t = Reshape(x, s)\n y, z = Split <axis = 1> (t, k)",
         "Split Reshape Reshape", {"s": i64(4, 2, 3), "k": i64(1, 1)}),
    Case("slice-above-reshape", "hoist-selections", "float[4,6] x => float[4,1,3] y",
         "t = Reshape(x, s)\n y = Slice(t, one, two, one, one)", "Slice Reshape",
         {"s": i64(4, 2, 3), "one": i64(1), "two": i64(2)}),
    Case("expand-target", "normalize-expand", "float[1,3] x => float[4,3] y",
         "y = Expand(x, s)", "Expand", {"s": i64(4, 1)}),
    Case("broadcast", "remove-expand", "float[1,3] x, float[4,3] z => float[4,3] y",
         "e = Expand(x, s)\n y = Mul(e, z)", "Mul", {"s": i64(4, 3)}),
    Case("pad-axes", "normalize-pad", "float[2,3] x => float[2,6] y",
         "y = Pad <mode = \"edge\"> (x, p, , a)", "Pad", {"p": i64(1, 2), "a": i64(-1)}),
]  # fmt: skip

REFUSALS = [


    Refusal("real-move", "merge-transpose", "float[1,12,6] x => float[1,3,6,4] y",
            "a = Reshape(x, s)\n b = Transpose <perm = [0,2,1]> (a)\n y = Reshape(b, t)",
            "", {"s": i64(3, 4, 6), "t": i64(1, 3, 6, 4)}),
    Refusal("computed-bounds", "normalize-slice", "float[6] x, int64[1] s => float[n] y",
            "y = Slice(x, s, e)", "not constant", {"e": i64(5)}),
    Refusal("computed-index", "normalize-gather", "float[6] x, int64[2] i => float[2] y",
            "y = Gather(x, i)", "not constant"),
    Refusal("gap", "slices-to-split", "float[2,6] x => float[2,2] y, float[2,3] z",
            "y = Slice(x, zero, two, a)\n z = Slice(x, three, six, a)", "",
            {"zero": i64(0), "two": i64(2), "three": i64(3), "six": i64(6), "a": i64(1)}),
    Refusal("unread-part", "slices-to-split", "float[2,6] x => float[2,2] y",
            "y = Slice(x, zero, two, a)\n z = Slice(x, two, six, a)", "",
            {"zero": i64(0), "two": i64(2), "six": i64(6), "a": i64(1)}),
    Refusal("other-reader", "hoist-selections",
            "float[4,6] x => float[2,4] y, float[6,4] z",
            "t = Transpose <perm = [1,0]> (x)\n y = Slice(t, a, b, a)\n z = Neg(t)",
            "other readers", {"a": i64(0), "b": i64(2)}),
    Refusal("interleaved", "hoist-selections", "float[4,6] x => float[4,2,1] y",
            "t = Reshape(x, s)\n y = Slice(t, z, o, k)", "no contiguous range",
            {"s": i64(4, 2, 3), "z": i64(0), "o": i64(1), "k": i64(2)}),
    Refusal("needed", "remove-expand", "float[1,3] x, float[1,3] z => float[4,3] y",
            "e = Expand(x, s)\n y = Mul(e, z)", "no other input", {"s": i64(4, 3)}),
    Refusal("negative", "normalize-pad", "float[2,6] x => float[2,3] y",
            "y = Pad(x, p)", "negative", {"p": i64(0, -1, 0, -2)}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.spec}-{c.name}")
def test_rewrites(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("case", REFUSALS, ids=lambda c: f"{c.spec}-{c.name}")
def test_refuses(case: Refusal) -> None:
    case.check()


@given(st.integers(1, 12), st.integers(-20, 20), st.integers(-20, 20), st.integers(1, 4))
def test_cut_of_cut_is_indexing_twice(size: int, start: int, end: int, step: int) -> None:
    data = np.arange(size)
    once = range(*slice(start, end, step).indices(size))
    if not once:
        return
    twice = range(*slice(0, len(once), 2).indices(len(once)))
    merged = Cut(0, 2, len(twice)).after(Cut(once.start, step, len(once)))
    picked = data[merged.start : merged.end(size) : merged.step]
    assert picked.tolist() == data[start:end:step][::2].tolist()


@settings(max_examples=200)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_axis_before_finds_the_same_elements(after: list[int], random: object) -> None:
    total = math.prod(after)
    before = _factors(total, random)
    numbers = np.arange(total)
    for axis, size in enumerate(after):
        place = axis_before(tuple(before), tuple(after), axis) if size > 1 else None
        if place is None:
            continue
        b, k = place
        wanted = numbers.reshape(after).take([1], axis).reshape(-1)
        found = numbers.reshape(before).take(range(k, 2 * k), b).reshape(-1)
        assert found.tolist() == wanted.tolist()


def _factors(total: int, random: object) -> list[int]:
    """Some shape with ``total`` elements."""
    shape = []
    while total > 1:
        choices = [d for d in range(2, total + 1) if total % d == 0]
        pick: int = random.choice(choices)  # type: ignore[attr-defined]
        shape.append(pick)
        total //= pick
    return [*shape, 1]


def test_a_value_keeps_its_name_only_with_its_tensor() -> None:
    from tests.passes.cases import load
    from tests.passes.harness import build, run

    model = build(
        "float[4,6] x => float[3,4] y, float[3,4] z",
        "t = Transpose <perm = [1,0]> (x)\n y, z = Split <axis = 0> (t, s)",
        {"s": i64(3, 3)},
    )
    load("hoist-selections")(model)
    load("remove-dead")(model)
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    for found, wanted in zip(run(model, {"x": x}), np.split(x.T, 2), strict=True):
        assert np.array_equal(found, wanted)
    names = {o.name for n in model.graph for o in n.outputs}
    assert {"y", "z"} <= names
    assert "t" not in names, "the transposed whole does not exist any more"
