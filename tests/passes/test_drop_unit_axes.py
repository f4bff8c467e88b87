from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgevit.passes.drop_unit_axes import DropUnitAxes, without_units
from tests.passes.harness import apply, build, check_same, i64

BODY = "a = Reshape(x, apart)\n t = Transpose<perm=[2,0,3,1,4]>(a)\n y = Reshape(t, heads)"
CONSTANTS = {"apart": i64(1, 5, 1, 3, 4), "heads": i64(1, 3, 5, 4)}


def test_heads_of_one_part() -> None:
    model = build("float[1,5,12] x => float[1,3,5,4] y", BODY, CONSTANTS)
    check_same(DropUnitAxes(), model, 0.0)
    transpose = model.graph.outputs[0].producer()
    assert transpose is not None
    assert tuple(transpose.attributes["perm"].as_ints()) == (0, 2, 1, 3)
    assert transpose.inputs[0] is not None
    assert transpose.inputs[0].shape == (1, 5, 3, 4)


def test_other_reshapes_stay() -> None:
    merged = {**CONSTANTS, "heads": i64(3, 20)}
    model = build("float[1,5,12] x => float[3,20] y", BODY, merged)
    assert not apply(DropUnitAxes(), model).modified


def test_a_second_reader_keeps_the_axis() -> None:
    body = BODY + "\n z = Neg(t)"
    signature = "float[1,5,12] x => float[1,3,5,4] y, float[1,1,3,5,4] z"
    assert not apply(DropUnitAxes(), build(signature, body, CONSTANTS)).modified


@given(st.lists(st.sampled_from([1, 1, 2, 3]), min_size=2, max_size=6), st.data())
def test_data_is_the_same(shape: list[int], data: st.DataObject) -> None:
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    moved = [shape[p] for p in perm]
    units = [i for i, d in enumerate(moved) if d == 1]
    dropped = data.draw(st.sets(st.sampled_from(units))) if units else set()
    target = tuple(d for i, d in enumerate(moved) if i not in dropped)
    found = without_units(tuple(shape), perm, target)
    assert (found is None) == (not dropped)
    if found is None:
        return
    x = np.arange(np.prod(shape))
    expected = x.reshape(shape).transpose(perm).reshape(target)
    np.testing.assert_array_equal(x.reshape(found[0]).transpose(found[1]), expected)
