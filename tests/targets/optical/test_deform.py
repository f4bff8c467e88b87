"""Gaps between a mask's pixels, coupled pixels, a turned mask: closed forms by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage

from edgevit.sim4f import deform, misalign
from edgevit.sim4f.deform import shown_mask
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.modulator import Modulator, double_phase, realize
from edgevit.sim4f.offload import Accelerator, OffloadedWave
from edgevit.sim4f.wave import WaveProduct
from tests.targets.optical.layers import Array, error, mapped

PLANE = (48, 64)
# Float64 transforms; at the band's edge the spectrum of a Gaussian of 2.5 pixels is
# exp(-(2.5 pi)^2 / 2) = 4e-14.
EXACT = 1e-9


def axes(plane: tuple[int, int] = PLANE) -> tuple[Array, Array]:
    y, x = (np.arange(n) - n // 2 for n in plane)
    return y[:, None], x[None, :]


def blob(y0: float, x0: float, m: float = 1.0) -> Array:
    """A Gaussian response about (y0, x0), of a mask magnified by ``m`` about the axis."""
    y, x = axes()
    return np.asarray(m**2 * np.exp(-((m * y - y0) ** 2 + (m * x - x0) ** 2) / 12.5))


def responses(response: Array, effects: Effects) -> Array:
    """Response of the mask that light meets, origin in the middle."""
    shown, top = shown_mask(np.fft.fft2(np.fft.ifftshift(response)), effects)
    return np.asarray(np.fft.fftshift(np.fft.ifft2(shown)) * top)


def turned_error(angle: float) -> float:
    y0, x0 = 5.0, 14.0
    found = responses(blob(y0, x0), Effects(rotation=angle))
    cos, sin = np.cos(angle), np.sin(angle)
    return error(found, blob(cos * y0 + sin * x0, cos * x0 - sin * y0))


def magnified_error(m: float) -> float:
    return error(responses(blob(5, 14), Effects(magnification=m)), blob(5, 14, m))


def test_a_round_mask_can_be_turned() -> None:
    assert error(responses(blob(0, 0), Effects(rotation=0.1)), blob(0, 0)) < EXACT


@pytest.mark.parametrize("angle", [0.01, -0.1, 0.3])
def test_a_turned_mask_turns_its_response(angle: float) -> None:
    assert turned_error(angle) < 1e-6


def test_a_small_turn_moves_a_point_by_its_distance_times_the_angle() -> None:
    angle, r = 1e-3, 14.0
    found = responses(blob(0, r), Effects(rotation=angle)).real
    y, x = axes()
    moved = [(found * axis).sum() / found.sum() for axis in (y, x)]
    # The next terms are r angle^3 / 6 and r angle^2 / 2.
    assert moved[0] == pytest.approx(r * angle, abs=1e-6)
    assert moved[1] == pytest.approx(r, abs=1e-5)


@pytest.mark.parametrize("m", [0.98, 1.05, 1.3])
def test_a_larger_mask_has_a_smaller_response(m: float) -> None:
    # The spectrum is m times as wide; what is beyond the band comes back.
    assert magnified_error(m) < EXACT + 2 * np.exp(-((2.5 * np.pi / m) ** 2) / 2)


def narrow_error(fill: float) -> float:
    """Against a mask drawn pixel by pixel on a grid 45 times as fine."""
    plane, fine, active = (8, 6), 45, 27
    rng = np.random.default_rng(0)
    response = rng.standard_normal(plane)
    shown = np.fft.fft2(np.fft.ifftshift(response))
    line = np.abs(np.arange(fine) - fine // 2) <= active // 2
    drawn = np.kron(np.fft.fftshift(shown), np.outer(line, line))
    rolls = [-(n // 2 * fine + fine // 2) for n in plane]
    every = np.fft.fftshift(np.fft.ifft2(np.roll(drawn, rolls, axis=(0, 1))))
    rows, columns = (slice(n * fine // 2 - n // 2, n * fine // 2 - n // 2 + n) for n in plane)
    return error(responses(response, Effects(fill_factor=fill)), every[rows, columns])


def test_gaps_dim_the_order_zero_and_narrow_the_response() -> None:
    # The grid's pixels make sin(x / 45) of x / 45: (pi / 2 / 45)^2 / 6 a factor at most.
    assert narrow_error((27 / 45) ** 2) < 2 * (np.pi / 2 / 45) ** 2 / 6
    one = np.zeros(PLANE)
    one[24, 32] = 3.0
    assert responses(one, Effects(fill_factor=0.8))[24, 32] == pytest.approx(0.8 * 3)


def gaussian(values: Array, sigma: float) -> Array:
    return np.asarray(scipy.ndimage.gaussian_filter(values, sigma, mode="wrap", truncate=9))


def coupled_error(kind: Any) -> float:
    # A sampled Gaussian of 2 pixels is a continuous one to exp(-(2 pi)^2 / 2) = 3e-9.
    rng = np.random.default_rng(1)
    spectrum = np.fft.fft2(rng.standard_normal(PLANE))
    shown, top = shown_mask(spectrum, Effects(mask=Modulator(kind), crosstalk=2.0))
    if kind == "ideal":
        blurred = gaussian(spectrum.real, 2) + 1j * gaussian(spectrum.imag, 2)
    else:
        pair = double_phase(spectrum / np.abs(spectrum).max())
        phasors = (np.exp(1j * gaussian(p % (2 * np.pi), 2)) for p in pair)
        blurred = sum(phasors) / 2 * np.abs(spectrum).max()
    return error(shown * top, np.asarray(blurred))


@pytest.mark.parametrize("kind", ["ideal", "double-phase"])
def test_neighbors_couple_by_a_gaussian(kind: str) -> None:
    assert coupled_error(kind) < 1e-6


def test_mutants_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    turn, scaled = misalign.rotate, misalign.displaced_transfer
    with monkeypatch.context() as m:
        m.setattr(misalign, "rotate", lambda values, angle: turn(values, -angle))
        assert turned_error(0.01) > 0.01
    with monkeypatch.context() as m:

        def inverse(*given: Any, scale: Any, **more: Any) -> Any:
            return scaled(*given, scale=(1 / scale[0], 1 / scale[1]), **more)

        m.setattr(misalign, "displaced_transfer", inverse)
        assert magnified_error(1.05) > 0.01
    with monkeypatch.context() as m:
        m.setattr(deform, "active_width", lambda fill: fill)
        assert narrow_error((27 / 45) ** 2) > 0.01
    with monkeypatch.context() as m:
        right = realize

        def of_light(modulator: Modulator, wanted: Array, *, crosstalk: float) -> Any:
            shown = right(modulator, wanted)
            return gaussian(shown.real, crosstalk) + 1j * gaussian(shown.imag, crosstalk)

        m.setattr(deform, "realize", of_light)
        assert coupled_error("double-phase") > 0.01


CLOSED = {
    "gaps": Effects(fill_factor=0.7),
    "coupled": Effects(crosstalk=0.6),
    "all": Effects(fill_factor=0.9, crosstalk=0.3, shift=(0.2, -0.3)),
}


@pytest.mark.parametrize("effects", CLOSED)
@pytest.mark.parametrize("name", ["one-shot", "channel-tile", "valid-tile"])
def test_the_fast_path_has_the_closed_form(name: str, effects: str) -> None:
    made, step = mapped(name)
    x, k = made.x.astype(float), made.kernel.astype(float)
    fast = FastProduct(made.shapes, CLOSED[effects])(step, x, k)
    wave = WaveProduct(made.shapes, CLOSED[effects], dtype=np.float64)(step, x, k)
    assert error(fast, wave) < 1e-6
    assert error(fast, made.exact) > 1e-3


@pytest.mark.parametrize("effects", [Effects(rotation=0.01), Effects(magnification=1.002)])
def test_frames_meet_a_turned_mask(effects: Effects) -> None:
    made, step = mapped("valid-tile")
    found = WaveProduct(made.shapes, effects)(step, made.x, made.kernel)
    assert 1e-3 < error(found, made.exact) < 0.5
    with pytest.raises(ParameterError, match=r"rotation, .* not modeled on an acc"):
        OffloadedWave(made.shapes, Accelerator(np), effects=effects)


@pytest.mark.parametrize(
    ("effects", "message"),
    [
        (Effects(rotation=0.01), "rotation: the fast path has no closed form"),
        (Effects(magnification=1.01), "magnification: the fast path"),
        (
            Effects(crosstalk=0.1, mask=Modulator("double-phase", 16)),
            "crosstalk of a mask with levels: the fast path .* use the wave path",
        ),
        (
            Effects(fill_factor=0.9, mask=Modulator("double-phase", 16)),
            "fill_factor of a mask with levels: the fast path",
        ),
    ],
)
def test_the_fast_path_refuses_what_has_none(effects: Effects, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        FastProduct({}, effects)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fill_factor": 0.0}, "fill_factor: expected 0 < fill_factor <= 1, found 0.0"),
        ({"fill_factor": 1.1}, "fill_factor: expected 0 < fill_factor <= 1, found 1.1"),
        (
            {"crosstalk": -1.0},
            "crosstalk: expected 0 <= crosstalk < inf mask pixels, found -1",
        ),
        ({"rotation": 1.0}, r"rotation: expected \|rotation\| <= pi / 4 rad, found 1.0"),
        ({"rotation": float("nan")}, r"rotation: expected \|rotation\|"),
        ({"magnification": 0.0}, "magnification: expected 0.5 <= magnification <= 2, found 0"),
    ],
)
def test_impossible_masks_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Effects(**given)
