"""Views against numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.targets.views import View, contiguous, identity

Shape = tuple[int, ...]


def _apply(view: View, perm: Shape, buffer: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Read ``x.transpose(perm)`` the way the artifact would: reshape, transpose, reshape."""
    moves = view.moves(perm)
    target = tuple(view.shape[p] for p in perm)
    if moves.perm is None:
        return buffer.reshape(target)
    return buffer.reshape(moves.source).transpose(moves.perm).reshape(target)


@st.composite
def _journeys(draw: st.DrawFn) -> tuple[Shape, Shape, list[Shape], Shape]:
    """A shape, the order it lies in, reshapes and transposes, and the order to read in."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)))
    lying = tuple(draw(st.permutations(range(len(shape)))))
    steps: list[Shape] = []
    rank, size = len(shape), math.prod(shape)
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            steps.append(tuple(draw(st.permutations(range(rank)))))
            continue
        divisors = [d for d in range(1, size + 1) if size % d == 0]
        first = draw(st.sampled_from(divisors))
        steps.append((-1, first, size // first))  # a leading -1 marks a reshape
        rank = 2
    return shape, lying, steps, tuple(draw(st.permutations(range(rank))))


@settings(deadline=None, max_examples=300)
@given(_journeys())
def test_journeys_end_where_numpy_does(
    journey: tuple[Shape, Shape, list[Shape], Shape],
) -> None:
    shape, lying, steps, perm = journey
    x = np.arange(math.prod(shape)).reshape(shape)
    buffer = x.transpose(lying).reshape(-1)
    view = identity(shape, lying)
    for step in steps:
        reshaped = step[0] == -1
        after = view.reshape(step[1:]) if reshaped else view.transpose(step)
        x = x.reshape(step[1:]) if reshaped else x.transpose(step)
        if after is None:  # must be computed: a new buffer in logical order
            after, buffer = identity(x.shape), x.reshape(-1).copy()
        view = after
    assert view.shape == x.shape
    assert np.array_equal(_apply(view, perm, buffer), x.transpose(perm))
    assert view.free(perm) == np.array_equal(buffer, x.transpose(perm).reshape(-1))


@settings(deadline=None, max_examples=100)
@given(st.permutations(range(4)), st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_natural_order_is_free(lying: list[int], shape: list[int]) -> None:
    view = identity(tuple(shape), tuple(lying))
    natural = view.natural()
    assert natural is not None
    assert view.free(natural)


def test_a_reshape_across_factors_must_be_computed() -> None:
    view = identity((4, 3), (1, 0))
    assert view.reshape((6, 2)) is None
    assert view.reshape((2, 6)) is not None


def test_moving_axes_of_size_one_is_free() -> None:
    assert identity((1, 5, 1)).free((2, 1, 0))
    assert not identity((2, 5, 1)).free((2, 1, 0))


def test_contiguous_rejects_gaps_and_swaps() -> None:
    assert contiguous([(2, 3), (3, 1)])
    assert not contiguous([(3, 1), (2, 3)])
    assert not contiguous([(2, 2)])
