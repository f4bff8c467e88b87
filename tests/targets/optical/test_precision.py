"""The predicted noise of a layer is what the simulated device does."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.moves import apply
from edgevit.sim4f.perturb import peak
from edgevit.sim4f.place import impulse_response, input_plane
from edgevit.sim4f.prepared import Prepared
from edgevit.sim4f.program import Optical
from edgevit.sim4f.setup import setup
from edgevit.targets.optical.account import Digital, compared, work
from edgevit.targets.optical.precision import Sight, layer_budget, photon_rate
from edgevit.targets.optical.study import Levels, Point, effects_of
from tests.targets.optical.layers import Case, mapped

RUNS = 200
# Two decibels are 26 % of an amplitude: the prediction averages over pixels and terms.
AGREE_DB = 2.0


def levels_of(made: Case, step: Optical) -> Levels:
    x = made.x.astype(float)
    planes = math.prod(apply(step.displayed.moves, made.x).shape[:-2])
    return Levels(
        full=float(np.abs(made.exact).max()),
        rms=float(np.sqrt(np.mean(made.exact**2))),
        top=float(np.abs(x).max()),
        shown=float(np.sqrt(np.mean(x**2))),
        light=float((x**2).sum() / planes),
    )


def predicted(name: str, point: Point, factor: float = 1.0) -> tuple[float, str]:
    made, step = mapped(name)
    effects = effects_of(point)
    sigma = 2 * np.pi / effects.mask.levels / math.sqrt(24) if point.mask_bits else 0.0
    seen = Sight(
        effects.photons * factor,
        False,
        effects.camera,
        point.display_bits,
        sigma,
        effects.shift,
    )
    top = peak(step, made.kernel, Prepared())
    budget = layer_budget(step, made.shapes, levels_of(made, step), top, seen, made.kernel)
    return -20 * math.log10(budget.noise), budget.limiting.name


def measured(name: str, point: Point) -> float:
    made, step = mapped(name)
    product = FastProduct(
        made.shapes,
        effects_of(point),
        np.random.default_rng(8),
        {"y": levels_of(made, step).full},
    )
    runs = np.stack([product(step, made.x, made.kernel) for _ in range(RUNS)])
    noise = np.sqrt(np.mean((runs - made.exact) ** 2))
    return float(-20 * np.log10(noise / levels_of(made, step).rms))


CASES = {
    "shot noise of the light": Point(photons=300.0),
    "read noise": Point(photons=1000.0, read_noise=300.0),
    "ADC": Point(photons=1e8, adc_bits=5),
    "mask levels": Point(mask_bits=5),
}


@pytest.mark.parametrize("name", ["one-shot", "valid-tile", "channel-tile"])
@pytest.mark.parametrize("limit", CASES)
def test_prediction_and_simulation_agree(limit: str, name: str) -> None:
    found, limiting = predicted(name, CASES[limit])
    assert limiting == limit
    assert found == pytest.approx(measured(name, CASES[limit]), abs=AGREE_DB)


def test_half_the_light_would_be_noticed() -> None:
    point = CASES["shot noise of the light"]
    wrong, _ = predicted("one-shot", point, factor=1 / 2)
    right, _ = predicted("one-shot", point)
    assert right - wrong == pytest.approx(10 * math.log10(2), abs=0.2)
    assert abs(wrong - measured("one-shot", point)) > AGREE_DB


def test_light_on_a_pixel_is_what_passes_the_mask() -> None:
    """The same light by waves: power of the input plane, a passive mask, one camera pixel."""
    made, step = mapped("one-shot")
    chosen = setup("catalogue-1080p-60")
    levels, top = levels_of(made, step), peak(step, made.kernel, Prepared())
    rate = photon_rate(step, levels, top, chosen)
    area = step.plane[0] * step.plane[1]
    seconds = chosen.figures["laser_power"].value * chosen.figures["efficiency"].value
    whole = seconds * chosen.wavelength / (6.62607015e-34 * 299792458.0)
    brightest = 0.0
    light = input_plane(step, apply(step.displayed.moves, made.x)[0, 0, 0])
    masks = apply(step.masked.moves, made.kernel)
    for taps in masks.reshape(-1, *masks.shape[-2:]):
        mask = np.fft.fft2(impulse_response(step, taps)) / top
        field = np.fft.ifft2(np.fft.fft2(light / levels.top) * mask).real
        rows, columns = step.read.rows.coordinates(), step.read.columns.coordinates()
        seen = field[np.ix_(rows % step.plane[0], columns % step.plane[1])]
        brightest = max(brightest, float((seen**2).max()))
    assert rate == pytest.approx(whole / area * brightest, rel=1e-4)


def test_amdahl_and_break_even_count_what_stays() -> None:
    found = compared(100, 0.010, Digital(0.040, 0.010, "test"))
    assert found["break_even_hz"] == pytest.approx(100 / 0.040)
    assert found["break_even_whole_hz"] == pytest.approx(100 / 0.020)
    assert found["amdahl"] == pytest.approx(4)
    slow = compared(100, 0.035, Digital(0.040, 0.010, "test"))
    assert slow["break_even_whole_hz"] is None
    assert compared(100, 0.01, None)["amdahl"] is None


def test_binary_inputs_take_a_frame_a_bit() -> None:
    made, step = mapped("one-shot")
    once, eight = (work(step, made.shapes, planes) for planes in (1, 8))
    assert eight.frames == 8 * once.frames
    assert eight.masks == once.masks
    assert replace(eight, frames=0).pixels_out == 8 * once.pixels_out
