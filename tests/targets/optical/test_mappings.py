"""Every mapping computes the convolution, on both paths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.errors import UnsupportedModelError
from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.program import frame_count
from edgevit.sim4f.wave import WaveProduct
from edgevit.targets.optical.layer import Window
from edgevit.targets.optical.planner import Goal, candidates, choose
from edgevit.targets.optical.tiles import channel_tile, tilings
from tests.targets.optical.layers import (
    FLOAT32,
    MAPPED,
    SIGNS,
    case,
    error,
    mapped,
    window,
)

PATHS = {"fast": FastProduct, "wave": WaveProduct}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("name", MAPPED)
def test_the_product_is_exact(name: str, signs: str, path: str) -> None:
    made, step = mapped(name, signs)
    found = PATHS[path](made.shapes)(step, made.x, made.kernel)
    assert error(found, made.exact) < FLOAT32


def windows() -> st.SearchStrategy[Window]:
    return st.builds(
        lambda size, kernel, stride, dilation, before, after: window(
            size, min(kernel, size), stride, dilation if kernel > 1 else 1, (before, after)
        ),
        st.integers(4, 9),
        st.integers(1, 3),
        st.integers(1, 2),
        st.integers(1, 2),
        st.integers(0, 2),
        st.integers(0, 2),
    ).filter(lambda w: w.out >= 1)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(*(st.integers(1, n) for n in (2, 2, 5, 6))),
    rows=windows(),
    columns=windows(),
    plane=st.tuples(st.integers(20, 45), st.integers(20, 45)),
    pick=st.integers(0, 99),
    signs=st.sampled_from(sorted(SIGNS)),
)
def test_random_layers_on_both_paths(
    sizes: Any, rows: Window, columns: Window, plane: Any, pick: int, signs: str
) -> None:
    n, g, i, o = sizes
    made = case(n, g, i, o, rows, columns, seed=pick)
    found = candidates(made.layer, plane)
    chosen = found[pick % len(found)]
    step = chosen.build(SIGNS[signs])
    assert frame_count(step, made.shapes) == chosen.frames
    scale = np.abs(made.exact).max() or 1.0
    for path in PATHS.values():
        product = path(made.shapes)(step, made.x, made.kernel)
        # What pads alone see is zero by the definition too.
        assert np.abs(product - made.exact).max() <= 5 * FLOAT32 * scale


def test_the_chosen_step_is_the_cheapest() -> None:
    made = case(1, 1, 12, 40, window(10, 1), window(1, 1))
    step = choose(made.layer, (24, 50), SIGNS["homodyne"], Goal())
    fewest = min(c.frames for c in candidates(made.layer, (24, 50)))
    assert frame_count(step, made.shapes) == fewest


def test_a_floor_changes_the_mapping_where_misplacement_ruins_wide_kernels() -> None:
    """Wide lattices of kernels need alignment; valid tiles do not (facts: 0.25 px)."""
    made = case(1, 1, 64, 64, window(64, 1), window(1, 1))
    careless = choose(made.layer, (256, 256), SIGNS["homodyne"], Goal(shift=(0.25, 0.25)))
    careful = choose(
        made.layer, (256, 256), SIGNS["homodyne"], Goal(shift=(0.25, 0.25), floor_db=40)
    )
    assert careless.mapping == "one-shot"
    assert careful.mapping == "valid-tile"
    more = frame_count(careful, made.shapes)
    assert more > frame_count(careless, made.shapes)


def test_a_floor_that_nothing_keeps_is_an_error_with_the_best() -> None:
    made = case(1, 1, 64, 64, window(64, 1), window(1, 1))
    goal = Goal(mappings=("one-shot",), shift=(50.0, 50.0), floor_db=60)
    with pytest.raises(UnsupportedModelError, match=r">= 60 dB .* found"):
        choose(made.layer, (256, 256), SIGNS["homodyne"], goal)


def test_a_plane_too_small_names_the_inequality() -> None:
    made = case(1, 1, 1, 1, window(30, 3, pads=(1, 1)), window(8, 3, pads=(1, 1)))
    with pytest.raises(UnsupportedModelError, match=r"tile pitch along y <= plane.*31 <= 20"):
        tilings(made.layer, (20, 40))


def test_isolated_groups_need_more_frames_and_give_the_same() -> None:
    made = case(1, 1, 12, 40, window(10, 1), window(1, 1))
    plane = (24, 60)
    dense = next(t for t in tilings(made.layer, plane) if t.across[0] == 1)
    apart = next(t for t in tilings(made.layer, plane, isolated=True) if t.across[0] == 1)
    assert apart.frames(made.layer) > dense.frames(made.layer)
    step = channel_tile(made.layer, plane, apart, SIGNS["homodyne"])
    found = WaveProduct(made.shapes)(step, made.x, made.kernel)
    assert error(found, made.exact) < FLOAT32
