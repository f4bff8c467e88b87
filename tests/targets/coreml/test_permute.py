"""Transposes through more than five axes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.errors import UnsupportedModelError
from edgevit.targets.coreml.permute import Permutation, simplify
from tests.targets.coreml.harness import Case, ints, lower, operations
from tests.targets.coreml.test_numbers import run


@st.composite
def permutations(draw: st.DrawFn) -> Permutation:
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=7))
    return Permutation(tuple(shape), tuple(draw(st.permutations(range(len(shape))))))


@given(permutations())
@settings(max_examples=200, deadline=None)
def test_the_simplified_transpose_moves_every_element_alike(p: Permutation) -> None:
    x = np.arange(math.prod(p.shape))
    expected = x.reshape(p.shape).transpose(p.perm).reshape(-1)
    small = simplify(p)
    found = x.reshape(small.shape).transpose(small.perm).reshape(-1)
    np.testing.assert_array_equal(found, expected)
    assert len(small.shape) <= len(p.shape)
    assert 1 not in small.shape


def _window() -> Case:
    graph = (
        "(float[2,4,6,5] x) => (float[12,4,5] y)"
        "{ a = Reshape(x, s) b = Transpose<perm = [0,1,3,2,4,5]>(a) y = Reshape(b, t) }"
    )
    return Case("window", graph, (), {"s": ints(2, 2, 2, 3, 2, 5), "t": ints(12, 4, 5)})


def test_a_window_partition_of_rank_six(tmp_path: Path) -> None:
    case = _window()
    lowered = lower(case.model(), "fp32")
    assert [op.kind for op in operations(lowered)] == ["reshape", "transpose", "reshape"]
    assert max(len(s) for op in operations(lowered) for s in op.shapes) == 4
    assert [b.name for b in lowered.values] == ["y"]
    feeds = case.feeds()
    x = feeds["x"].reshape(2, 2, 2, 3, 2, 5).transpose(0, 1, 3, 2, 4, 5).reshape(12, 4, 5)
    np.testing.assert_array_equal(run(lowered, feeds, tmp_path)["y"], x)


def test_a_value_of_rank_six_that_someone_else_reads_is_refused() -> None:
    graph = (
        _window()
        .graph.replace("=> (", "=> (float[2,2,3,2,2,5] z, ")
        .replace("y = Reshape(b, t)", "z = Relu(b) y = Reshape(b, t)")
    )
    with pytest.raises(UnsupportedModelError, match="rank 6"):
        lower(Case("window", graph, (), _window().constants).model(), "fp32")


def test_six_axes_that_all_part_are_refused() -> None:
    graph = (
        "(float[8,8] x) => (float[64] y)"
        "{ a = Reshape(x, s) b = Transpose<perm = [5,4,3,2,1,0]>(a) y = Reshape(b, t) }"
    )
    constants = {"s": ints(2, 2, 2, 2, 2, 2), "t": ints(64)}
    with pytest.raises(UnsupportedModelError, match="rank 6"):
        lower(Case("g", graph, (), constants).model(), "fp32")
