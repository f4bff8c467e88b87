"""Unfolding and folding: tables as slices and transposes, sums of blocks by phase."""

from __future__ import annotations

import numpy as np
import pytest

from edgevit.passes.gather_grids import rows_of, transposed_range
from tests.passes.cases import Case, Refusal
from tests.passes.harness import i64

APART = np.array([[0, 2, 4], [1, 3, 5]])
OVER = np.array([[0, 2, 4], [1, 3, 5], [2, 4, 6]])
# A sum of up to nine numbers of size 8: eight reassociated additions.
SUM_LIMIT = 8 * 72 * 2**-24
NORMAL = ("normalize-attributes",)


def _fold(name: str, blocks: int, image: tuple[int, int], makes: str, rest: str) -> Case:
    """A fold of two channels with 3x3 blocks, or as ``rest`` says."""
    return Case(name, "decompose-col2im",
                f"float[1,18,{blocks}] x => float[1,2,{image[0]},{image[1]}] y",
                f"y = Col2Im <{rest}> (x, s, k)", makes,
                {"s": i64(*image), "k": i64(3, 3)}, SUM_LIMIT, NORMAL)  # fmt: skip


CUT = "Reshape Split " + "Reshape " * 9
CASES = [
    Case("without-overlap", "normalize-gather", "float[1,2,6,5] x => float[1,2,2,3,5] y",
         "y = Gather <axis = 2> (x, i)", "Reshape Transpose", {"i": APART}),
    Case("with-overlap", "normalize-gather", "float[1,2,7,5] x => float[1,2,3,3,5] y",
         "y = Gather <axis = 2> (x, i)", "Slice Slice Slice Concat Reshape", {"i": OVER}),
    Case("table-of-two-axes", "normalize-gather", "float[1,2,7,5] x => float[1,2,2,2,5] y",
         "y = Gather <axis = 2> (x, i)", "Gather Reshape",
         {"i": np.array([[0, 3], [5, 1]])}),
    _fold("stride-two", 9, (6, 6), CUT + "Pad " * 9 + "Add " * 5 + "Concat DepthToSpace Slice",
          "strides = [2,2], pads = [1,1,1,1]"),
    _fold("stride-one", 20, (4, 5), CUT + "Pad " * 9 + "Add " * 8 + "Slice",
          "strides = [1,1], pads = [1,1,1,1]"),
    _fold("no-overlap", 4, (6, 6), CUT + "Concat DepthToSpace", "strides = [3,3]"),
]  # fmt: skip

REFUSALS = [
    Refusal("gaps", "decompose-col2im", "float[1,2,4] x => float[1,2,3,3] y",
            "y = Col2Im <strides = [2,2]> (x, s, k)", "gaps",
            {"s": i64(3, 3), "k": i64(1, 1)}, NORMAL),
    Refusal("dilated", "decompose-col2im", "float[1,8,16] x => float[1,2,6,6] y",
            "y = Col2Im <dilations = [2,2]> (x, s, k)", "dilated",
            {"s": i64(6, 6), "k": i64(2, 2)}, NORMAL),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.spec}-{c.name}")
def test_rewrites(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("case", REFUSALS, ids=lambda c: f"{c.spec}-{c.name}")
def test_leaves_alone(case: Refusal) -> None:
    case.check()


def test_a_transposed_range_is_all_of_the_axis_in_steps() -> None:
    assert transposed_range(np.array([0, 3, 1, 4, 2, 5]), 6) == (2, 3)
    assert transposed_range(np.array([0, 3, 1, 4, 2, 5]), 7) is None
    assert transposed_range(np.array([0, 3, 1, 4, 5, 2]), 6) is None


def test_rows_are_ranges_of_one_step() -> None:
    rows = rows_of(OVER)
    assert rows is not None
    assert [(r.start, r.step, r.count) for r in rows] == [(0, 2, 3), (1, 2, 3), (2, 2, 3)]
    assert rows_of(np.array([[0, 2, 4], [1, 2, 3]])) is None
    assert rows_of(np.array([[4, 2, 0]])) is None
