from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.bundle import Binding
from edgevit.errors import ArtifactError, InputError
from edgevit.runtimes.binding import from_artifact, to_artifact


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    perm = draw(st.one_of(st.none(), st.permutations(range(len(shape)))))
    return shape, None if perm is None else tuple(perm)


def values(shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    return np.arange(math.prod(shape)).reshape(shape).astype(dtype)


@given(layouts(), st.sampled_from(["float32", "float16", "int64", "uint8"]))
def test_every_element_lands_where_the_permutation_says(
    layout: tuple[tuple[int, ...], tuple[int, ...] | None], dtype: str
) -> None:
    shape, perm = layout
    turned = shape if perm is None else tuple(shape[p] for p in perm)
    array = values(shape, "float32")
    binding = Binding("x", "a", "float32", shape, dtype, turned, perm)
    if dtype in ("int64", "uint8"):
        binding = Binding("x", "a", "int32", shape, dtype, turned, perm)
        array = values(shape, "int32")
    found = to_artifact(binding, array)
    assert found.shape == turned
    assert found.dtype == np.dtype(dtype)
    assert found.flags.c_contiguous
    # Oracle: element by element, by index arithmetic.
    for index in itertools.product(*(range(n) for n in shape)):
        moved = index if perm is None else tuple(index[p] for p in perm)
        assert found[moved] == array[index]
    back = from_artifact(binding, found)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_a_reshape_keeps_the_order_of_elements() -> None:
    binding = Binding("x", "a", "float32", (2, 3, 4), "float32", (4, 6), (2, 0, 1))
    array = values((2, 3, 4), "float32")
    found = to_artifact(binding, array)
    assert found[1, 5] == array[1, 2, 1]
    np.testing.assert_array_equal(from_artifact(binding, found), array)


def narrow(source: str, artifact: str) -> Binding:
    return Binding("x", "a", source, (2,), artifact, (2,))


@pytest.mark.parametrize(
    ("source", "artifact", "largest"),
    [
        ("int64", "int32", 2**31 - 1),
        ("int64", "uint8", 255),
        ("int32", "int16", 32767),
        ("float32", "float16", 65504),
    ],
)
def test_values_that_fit_pass_and_the_next_one_is_refused(
    source: str, artifact: str, largest: int
) -> None:
    binding = narrow(source, artifact)
    fits = np.array([0, largest], source)
    np.testing.assert_array_equal(to_artifact(binding, fits), fits)
    step = 1 if artifact != "float16" else 16
    with pytest.raises(InputError, match=f"does not fit {artifact}"):
        to_artifact(binding, np.array([0, largest + step], source))


def test_values_below_the_range_are_refused() -> None:
    with pytest.raises(InputError, match="-1 does not fit uint8"):
        to_artifact(narrow("int64", "uint8"), np.array([5, -1]))


def test_infinity_and_nan_pass_through() -> None:
    array = np.array([np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(to_artifact(narrow("float32", "float16"), array), array)


def test_fractions_are_never_cut_to_integers() -> None:
    with pytest.raises(ArtifactError, match="no scale"):
        to_artifact(narrow("float32", "int8"), np.array([0.5, 1], np.float32))


def test_flags_become_numbers_and_come_back() -> None:
    flags = np.array([True, False])
    found = to_artifact(narrow("bool", "float32"), flags)
    np.testing.assert_array_equal(found, np.array([1, 0], np.float32))
    np.testing.assert_array_equal(from_artifact(narrow("bool", "float32"), found), flags)


def test_an_engine_with_another_shape_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"expected the artifact's shape \(2,\), found"):
        from_artifact(narrow("float32", "float32"), np.zeros((1, 2), np.float32))
