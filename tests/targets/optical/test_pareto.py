"""Costs of a point on a set-up, and the front of several."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.front import nondominated
from edgevit.sim4f.perturb import peak
from edgevit.sim4f.prepared import Prepared
from edgevit.sim4f.program import frame_count
from edgevit.sim4f.setup import Setup, setup
from edgevit.targets.optical.pareto import point_cost
from edgevit.targets.optical.precision import photon_rate
from edgevit.targets.optical.study import Levels, Point
from tests.targets.optical.layers import mapped

COSTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12)


@given(COSTS)
def test_the_front_by_its_definition(costs: list[tuple[int, int, int]]) -> None:
    found = nondominated([tuple(map(float, c)) for c in costs])
    for mine, optimal in zip(costs, found, strict=True):
        better = [
            all(o <= m for o, m in zip(other, mine, strict=True)) and sum(other) < sum(mine)
            for other in costs
        ]
        assert optimal == (not any(better))


@given(COSTS)
def test_everything_is_matched_by_something_on_the_front(
    costs: list[tuple[int, int, int]],
) -> None:
    kept = [c for c, ok in zip(costs, nondominated(costs), strict=True) if ok]
    for mine in costs:
        assert any(all(o <= m for o, m in zip(k, mine, strict=True)) for k in kept)


def subject() -> Any:
    """One layer, calibrated by hand."""
    made, step = mapped("one-shot")
    program = SimpleNamespace(optical=(step,), shapes=made.shapes)
    levels = Levels(
        float(np.abs(made.exact).max()), 1.0, float(np.abs(made.x).max()), 1.0, 1.0
    )
    executor = SimpleNamespace(weights={"k": made.kernel})
    return SimpleNamespace(
        program=program, levels={"y": levels}, executor=executor, prepared=Prepared()
    )


def strong(chosen: Setup, watts: float) -> Setup:
    """The set-up with another laser."""
    power = replace(chosen.figures["laser_power"], value=watts)
    return replace(chosen, figures={**chosen.figures, "laser_power": power})


def test_much_light_takes_its_time_and_little_none() -> None:
    it, chosen = subject(), strong(setup("hypothetical-4k-2mhz"), 1e-5)
    made, step = mapped("one-shot")
    rate = photon_rate(step, it.levels["y"], peak(step, made.kernel, Prepared()), chosen)
    few, many = (point_cost(it, chosen, Point(photons=p)) for p in (1e-9, 1000.0))
    assert few is not None
    assert many is not None
    # Full well 10,000 and a pedestal of four: up to 2,500 photons take one exposure.
    frames = 2 * frame_count(step, made.shapes)
    masks = frame_count(step, made.shapes)
    assert many[0] == pytest.approx(frames * 1000 / rate + masks / 2e6)
    assert few[0] < many[0]
    assert few[1] < many[1]


def test_twice_the_laser_halves_the_exposure() -> None:
    it, chosen = subject(), setup("hypothetical-4k-2mhz")
    point = Point(photons=1e5)
    one, two = (point_cost(it, strong(chosen, w), point) for w in (1e-4, 2e-4))
    assert one is not None
    assert two is not None
    assert one[0] / two[0] == pytest.approx(2, rel=1e-2)


def test_above_the_full_well_exposures_are_averaged() -> None:
    """A bright laser: only frames count, and four times the light is four times the frames."""
    it = subject()
    chosen = strong(setup("catalogue-1080p-60"), 1e12)
    well = 24_000 / 4
    once, four = (point_cost(it, chosen, Point(photons=n * well)) for n in (1.0, 4.0))
    made, step = mapped("one-shot")
    masks = frame_count(step, made.shapes)
    assert once is not None
    assert four is not None
    assert four[0] - masks / 60 == pytest.approx(4 * (once[0] - masks / 60))


def test_more_converter_bits_cost_energy() -> None:
    it, chosen = subject(), setup("catalogue-1080p-60")
    six, twelve = (point_cost(it, chosen, Point(photons=10.0, adc_bits=b)) for b in (6, 12))
    assert six is not None
    assert twelve is not None
    assert six[0] == twelve[0]
    assert six[1] < twelve[1]


def test_unlimited_light_has_no_price() -> None:
    assert point_cost(subject(), setup("catalogue-1080p-60"), Point()) is None
