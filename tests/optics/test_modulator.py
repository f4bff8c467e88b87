"""Modulators: gratings and levels against diffraction theory, and what no device can show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgevit.sim4f.catalogue import component, modulator_of
from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.fourier import lens
from edgevit.sim4f.grid import Field, Grid
from edgevit.sim4f.modulator import Modulator, double_phase, nearest_level, passive, realize
from edgevit.sim4f.pixels import active_width, crosstalk, display, envelope

LAM = 532e-9


def orders(transmission: Any, period: int) -> Any:
    """Amplitude of each diffraction order of a grating of ``period`` pixels, by its DFT."""
    return np.fft.fft(np.asarray(transmission)[:period]) / period


@pytest.mark.parametrize("duty", [0.25, 0.5, 0.375])
def test_binary_grating_orders(duty: float) -> None:
    """(sin(pi m D) / (pi m))^2, to the sampling of the period (order m / period squared)."""
    period = 4096
    wanted = np.linspace(0, 1, period, endpoint=False) < duty
    shown = realize(Modulator("binary"), wanted.astype(float))
    power = np.abs(orders(shown, period)) ** 2
    for m in range(1, 6):
        expected = (np.sin(np.pi * m * duty) / (np.pi * m)) ** 2
        assert power[m] == pytest.approx(expected, rel=1e-4, abs=1e-12)
    assert power[0] == pytest.approx(duty**2, rel=1e-12)


def test_lee_hologram_has_one_over_pi_squared() -> None:
    """The best first order of a binary amplitude hologram: 10.13 %."""
    wanted = 0.5 + 0.5 * np.cos(2 * np.pi * (np.arange(4096) + 0.5) / 4096)
    shown = realize(Modulator("binary"), wanted)
    assert abs(orders(shown, 4096)[1]) ** 2 == pytest.approx(1 / np.pi**2, rel=1e-5)


@pytest.mark.parametrize(("levels", "percent"), [(2, 40.5), (4, 81.1), (8, 95.0), (16, 98.7)])
def test_blazed_grating_efficiency(levels: int, percent: float) -> None:
    """sinc^2(1 / N) for N levels (Goodman, sec. 7.3)."""
    period = 4096
    # A quarter of a step avoids samples on the border of two levels.
    phase = 2 * np.pi * (np.arange(period) + 0.25) / period
    shown = realize(Modulator("phase", levels), np.exp(1j * phase))
    found = abs(orders(shown, period)[1]) ** 2
    assert found == pytest.approx(np.sinc(1 / levels) ** 2, rel=1e-3)
    assert 100 * found == pytest.approx(percent, abs=0.1)


def test_zero_order_of_the_fill_factor() -> None:
    """A mirror of pixels of fill factor F sends F^2 of its light into the zero order."""
    grid = Grid((8, 8), (1e-5, 1e-5), LAM)
    fine = display(Field(np.ones((8, 8), complex), grid), 5, 0.36, 0.0)
    share = abs(fine.values.mean()) ** 2
    # 0.6 of a pixel is active along each axis: 3 of 5 sub-pixels.
    assert share == pytest.approx(0.36**2, rel=1e-12)
    leaky = display(Field(np.ones((8, 8), complex), grid), 5, 0.36, 0.5)
    assert abs(leaky.values.mean()) == pytest.approx(0.36 + 0.64 * 0.5, rel=1e-12)


@pytest.mark.parametrize(("n", "oversample"), [(8, 5), (9, 3), (8, 3)])
def test_display_keeps_the_pixel_centres(n: int, oversample: int) -> None:
    values = np.zeros((n, n), complex)
    values[n // 2, n // 2 + 1] = 1
    grid = Grid((n, n), (1e-5, 1e-5), LAM)
    fine = display(Field(values, grid), oversample, 0.9, 0.0)
    weight = np.abs(fine.values)
    for axis, pixel in ((0, n // 2), (1, n // 2 + 1)):
        centre = (weight.sum(axis=1 - axis) * fine.grid.axis(axis)).sum() / weight.sum()
        assert centre == pytest.approx(grid.axis(axis)[pixel], abs=1e-18)


def test_envelope_is_the_far_field_of_one_pixel() -> None:
    grid = Grid((9, 9), (1e-5, 1e-5), LAM)
    values = np.zeros((9, 9), complex)
    values[4, 4] = 1
    fine = display(Field(values, grid), 61, 0.81, 0.0)
    out = lens(fine, 0.1)
    expected = envelope(out.grid, 0.1, grid.pitch, 0.81)
    centre = np.abs(out.values).max()
    middle = (slice(out.grid.shape[0] // 2 - 8, out.grid.shape[0] // 2 + 9),) * 2
    found = (out.values * 1j).real[middle] / centre
    # 61 sub-pixels resolve the pixel to (pi / (2 * 61 * 0.9 ...))^2: a part in 1e3.
    np.testing.assert_allclose(found, expected[middle], atol=1e-3)


def test_double_phase_is_exact_on_average() -> None:
    rng = np.random.default_rng(1)
    wanted = np.sqrt(rng.uniform(0, 1, 500)) * np.exp(2j * np.pi * rng.uniform(0, 1, 500))
    first, second = double_phase(wanted)
    mean = (np.exp(1j * first) + np.exp(1j * second)) / 2
    np.testing.assert_allclose(mean, wanted, atol=1e-12)
    shown = realize(Modulator("double-phase"), wanted)
    np.testing.assert_allclose(shown, wanted, atol=1e-12)


def low_passed_error(n: int) -> float:
    """Two phase pixels a value, side by side, behind a low-pass: the worst kept frequency."""
    turn = 2j * np.pi * np.arange(n) / n
    wanted = 0.5 * np.exp(3 * turn) + 0.2 * np.exp(-turn)
    first, second = double_phase(wanted)
    pixels = np.exp(1j * np.stack([first, second], axis=1).ravel())
    # A pair is centred half a value behind its first pixel.
    centre = np.exp(-1j * np.pi * np.arange(8) / (2 * n))
    found = np.fft.fft(pixels)[:8] / (2 * n)
    return float(np.abs(found - np.fft.fft(wanted)[:8] / n * centre).max())


def test_double_phase_survives_a_low_pass_with_order_one() -> None:
    errors = [low_passed_error(n) for n in (256, 1024, 4096)]
    order = np.log(errors[0] / errors[2]) / np.log(16)
    assert order > 0.9
    assert errors[2] < 2e-3


@pytest.mark.parametrize(("bits", "expected"), [(4, 0.113), (6, 2.8e-2), (8, 7.1e-3)])
def test_phase_levels_make_the_predicted_error(bits: int, expected: float) -> None:
    """Uniform phase error of 2 pi / (2^b sqrt 12), for random masks."""
    rng = np.random.default_rng(2)
    mask = np.exp(2j * np.pi * rng.uniform(0, 1, 40_000))
    shown = realize(Modulator("phase", 2**bits), mask)
    error = np.sqrt(np.mean(np.abs(shown - mask) ** 2))
    assert error == pytest.approx(expected, rel=0.02)


def test_finer_levels_come_nearer_by_kind() -> None:
    rng = np.random.default_rng(3)
    wanted, _ = passive(rng.standard_normal(500) + 1j * rng.standard_normal(500))
    kinds: tuple[Any, ...] = ("complex", "double-phase")
    for kind in kinds:
        errors = [
            np.abs(realize(Modulator(kind, n), wanted) - wanted).max() for n in (16, 256, 0)
        ]
        assert errors[0] > 8 * errors[1] > 0
        assert errors[2] < 1e-12


def test_wrong_stroke_scales_the_phase() -> None:
    shown = realize(Modulator("phase", stroke=1.8 * np.pi), np.exp(1j * np.array([0.0, 1.0])))
    np.testing.assert_allclose(np.angle(shown), [0, 0.9], atol=1e-12)


def test_table_takes_the_nearest_entry_round_the_circle() -> None:
    plm = modulator_of(component("modulator", "ti-plm-p67"))
    phases = np.asarray(plm.table) * plm.stroke
    rng = np.random.default_rng(4)
    wanted = rng.uniform(-np.pi, np.pi, 1000)
    shown = realize(plm, np.exp(1j * wanted))
    distance = np.abs(np.exp(1j * wanted)[:, None] - np.exp(1j * phases))
    np.testing.assert_allclose(shown, np.exp(1j * phases[distance.argmin(axis=1)]), atol=1e-12)


def test_amplitude_table_and_levels() -> None:
    table = (0.0, 0.1, 0.5, 1.0)
    shown = realize(Modulator("amplitude", 4, table), np.array([0.04, 0.06, 0.6, 0.9]))
    np.testing.assert_allclose(shown, [0, 0.1, 0.5, 1.0])
    shown = realize(Modulator("amplitude", 5), np.array([0.1, 0.2, 0.9]))
    np.testing.assert_allclose(shown, [0, 0.25, 1.0])
    index = nearest_level(np.array([0.3, -1, 2]), np.array(table), xp=np)
    assert index.tolist() == [2, 0, 3]


def test_crosstalk_blurs_and_keeps_the_mean() -> None:
    rng = np.random.default_rng(5)
    phase = rng.uniform(0, 2 * np.pi, (32, 33))
    blurred = crosstalk(phase, 1.5)
    assert blurred.mean() == pytest.approx(phase.mean(), rel=1e-12)
    wave = np.cos(2 * np.pi * 4 * np.arange(33) / 33) * np.ones((32, 1))
    damping = np.exp(-2 * (np.pi * 1.5 * 4 / 33) ** 2)
    np.testing.assert_allclose(crosstalk(wave, 1.5), damping * wave, atol=1e-12)
    np.testing.assert_array_equal(crosstalk(phase, 0.0), phase)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "phase", "levels": 1}, "levels: expected 0 or >= 2"),
        ({"kind": "phase", "stroke": 0.0}, "stroke: expected 0 < stroke"),
        (
            {"kind": "phase", "levels": 3, "table": (0, 1)},
            "table entries: expected levels = 3",
        ),
        ({"kind": "phase", "levels": 2, "table": (0.5, 0.5)}, "strictly increasing"),
        ({"kind": "phase", "levels": 2, "table": (0, 1.5)}, "0 <= entry <= 1"),
        ({"kind": "phase", "levels": 2, "table": (0, 1), "stroke": 7.0}, "<= 2 pi with"),
        ({"kind": "complex", "amplitude_levels": 1}, "amplitude_levels"),
    ],
)
def test_impossible_modulators_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Modulator(**given)


def test_impossible_transmissions_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"\|t\| <= 1 \(passive modulator\), found 1.5"):
        realize(Modulator("complex"), np.array([1.5 + 0j]))
    with pytest.raises(ParameterError, match=r"t >= 0 \(amplitude pixels\), found -0.5"):
        realize(Modulator("amplitude"), np.array([-0.5]))
    with pytest.raises(ParameterError, match="real values, found complex"):
        realize(Modulator("binary"), np.array([0.5 + 0j]))
    with pytest.raises(ParameterError, match="fill_factor"):
        active_width(1.2)
    grid = Grid((4, 4), (1e-6, 1e-6), LAM)
    with pytest.raises(ParameterError, match="oversample: expected odd"):
        display(Field(np.ones((4, 4), complex), grid), 2, 0.9, 0.0)
