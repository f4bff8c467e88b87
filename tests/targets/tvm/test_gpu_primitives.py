"""The CUDA benchmark's layout of codes, and that its source compiles where nvcc is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu.primitives import dot_words, library
from edgevit.shift_codes import levels


def places(lane: int, i: int) -> tuple[int, int]:
    """Row along K and column of an element of a lane's tile, as mma.m16n8k32 reads B."""
    return 4 * (lane % 4) + i % 4 + 16 * (i // 4), lane // 4


@pytest.mark.parametrize("bits", [4, 8])
def test_words_are_dealt_as_tensor_cores_read_them(bits: int) -> None:
    rng = np.random.default_rng(0)
    q = rng.choice(levels(1), (64, 16)) if bits == 4 else rng.integers(-127, 128, (64, 16))
    words = dot_words(q, bits)
    for lane in range(32):
        for i in range(8):
            row, column = places(lane, i)
            tiles = q[row::32, column::8]  # [K/32, N/8]
            if bits == 8:
                got = words.view(np.int8).reshape(2, 2, 32, 8)[:, :, lane, i]
            else:
                code = words[:, :, lane].astype(np.int64) >> (4 * i) & 15
                got = ((1 << (code & 7)) >> 1) * np.where(code & 8, -1, 1)
            assert np.array_equal(got, tiles)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc here")
def test_the_source_compiles(tmp_path: Path) -> None:
    library(tmp_path)
    assert (tmp_path / "primitives.so").stat().st_size > 0
