"""Gathering by steps is gathering by indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgevit.sim4f.gather import Gather

Array = np.ndarray[Any, Any]


def plainly(index: Array, array: Array) -> Array:
    flat = array.reshape(len(array), -1)
    return np.where(index >= 0, flat[:, np.maximum(index, 0)], 0)


def dark(shape: tuple[int, ...], *corners: Any) -> Array:
    index = np.arange(int(np.prod(shape))).reshape(shape)
    for corner in corners:
        index[corner] = -1
    return index


EVERY = np.arange(60).reshape(3, 4, 5)
CASES = {
    "in order": (EVERY, True),
    "transposed": (EVERY.transpose(2, 0, 1), True),
    "reversed": (EVERY[:, ::-1], True),
    "strided": (EVERY[::2, 1:, ::3], True),
    "repeated": (np.broadcast_to(EVERY[:, :1], (3, 4, 5)), True),
    "dark at the end": (dark((3, 4, 5), np.s_[:, 3:], np.s_[:, :, 4:]), True),
    "dark at the start": (dark((3, 4, 5), np.s_[:1]), False),
    "a dark hole": (dark((3, 4, 5), np.s_[1, 2, 3]), False),
    "out of order": (EVERY[[0, 2, 1]], False),
    "one moved": (np.where(EVERY == 59, 0, EVERY), False),
    "all dark": (np.full((2, 3), -1), False),
    "one element": (np.array([[7]]), True),
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways_agree(name: str) -> None:
    index, by_steps = CASES[name]
    array = np.random.default_rng(0).standard_normal((2, 6, 10)).astype(np.float32)
    gather = Gather.of(index)
    assert (gather.index is None) == by_steps
    found = gather(array)
    assert found.shape == (2, *index.shape)
    assert found.flags.c_contiguous
    assert np.array_equal(gather.indices(), index)
    assert np.array_equal(found, plainly(index, array))
