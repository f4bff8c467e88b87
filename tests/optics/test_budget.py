"""Cost, photon and precision budgets; golden figures of the literature."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgevit.sim4f.bounds import Comparison, amdahl, break_even_rate
from edgevit.sim4f.budget import (
    Budget,
    Term,
    averages_for,
    detection_terms,
    enob,
    input_term,
    mask_efficiency,
    mask_phase_term,
    photons_per_pixel,
)
from edgevit.sim4f.camera import Camera, detect
from edgevit.sim4f.cost import Stages, Work, absent_powers, energy, latency, stages
from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.fatnet import (
    FATNET,
    RESNET18,
    channel_products,
    seconds_per_sample,
    tiles_per_pass,
)
from edgevit.sim4f.modulator import Modulator, passive, realize
from edgevit.sim4f.recovery import homodyne_join, homodyne_light
from edgevit.sim4f.setup import setup


def test_fatnet_metric() -> None:
    assert channel_products(RESNET18) == 1_220_800
    assert channel_products(FATNET) == 148_637
    assert channel_products((*FATNET, (155, 1, 10, 10))) == 148_792
    assert round(1_220_800 / 148_637, 1) == 8.2


@pytest.mark.parametrize(
    ("operations", "batch", "printed"),
    [
        (1_220_800, 64, "3.815e-02"),
        (1_220_800, 3136, "7.786e-04"),
        (148_637, 64, "4.645e-03"),
        (148_637, 3136, "9.479e-05"),
    ],
)
def test_fatnet_timings_to_the_printed_digits(
    operations: int, batch: int, printed: str
) -> None:
    assert f"{seconds_per_sample(operations, batch, 2e-6):.3e}" == printed
    assert f"{seconds_per_sample(operations, batch, 1.9e-6):.3e}" != printed


def test_fatnet_largest_batch_fills_a_4k_plane() -> None:
    assert tiles_per_pass(2160, 32, 7) == 3136
    # What the published model leaves out: its large-kernel layers hold fewer images a pass.
    assert tiles_per_pass(2160, 10, 73) == 676
    with pytest.raises(ParameterError, match="R >= M"):
        tiles_per_pass(30, 32, 7)


def test_period_is_the_longest_stage_or_their_sum() -> None:
    timing = Stages(0.1, 1.0, 2.0, 5.0, 3.0, pipelined=True)
    assert timing.period == 5
    assert timing.limit == "readout"
    assert replace(timing, pipelined=False).period == 11
    work = Work(10, 4, 0, 0, 0, 0)
    assert latency(work, timing) == pytest.approx(50.4)
    assert latency(work + work, timing) == pytest.approx(100.8)


def test_catalogue_latency_of_deit_tiny() -> None:
    """786 signed frames at 4K and 60 Hz: 13.1 s, whatever the rest does."""
    timing = stages(
        setup("catalogue-4k-60"), rows_read=2160, bytes_per_frame=2160 * 3840, pipelined=True
    )
    assert timing.limit == "input"
    assert latency(Work(786, 0, 0, 0, 0, 0), timing) == pytest.approx(13.1, abs=0.01)


def test_converters_cost_26_picojoule_a_mac_for_linear_layers() -> None:
    """Signs times (E_dac + E_adc) / (MAC a pixel), with s = 2 and 0.385 MAC a pixel."""
    system = setup("catalogue-4k-60")
    timing = stages(system, rows_read=2160, bytes_per_frame=1.0, pipelined=True)
    pixels = 1_000_000
    work = Work(2, 1, 2 * pixels, 0, 2 * pixels, int(0.385 * pixels))
    found = energy(work, system, timing, joule_per_mac=0.3e-12)
    assert (found.dac + found.adc) / work.macs == pytest.approx(26e-12, rel=0.01)
    assert found.total >= found.dac + found.adc + found.laser
    assert found.laser == pytest.approx(0.1 / 0.2 * latency(work, timing))
    assert set(absent_powers(system)) == {"input", "mask", "camera", "link"}
    electronic = energy(replace(work, macs_electronic=10), system, timing, joule_per_mac=1.0)
    assert electronic.electronics == 10


def test_more_rows_than_the_camera_has_are_refused() -> None:
    with pytest.raises(ParameterError, match="rows_read: expected 0 < rows <= 3008"):
        stages(setup("catalogue-4k-60"), rows_read=5000, bytes_per_frame=1, pipelined=True)
    with pytest.raises(ParameterError, match="stage exposure"):
        Stages(0, 0, -1.0, 0, 0, pipelined=True)


def test_photon_budget() -> None:
    """The two examples of the physics notes, to their two digits."""
    assert photons_per_pixel(0.1, 43e-6, 1e-2, 532e-9, 1920 * 1080) == pytest.approx(
        5.6e4, rel=0.02
    )
    assert photons_per_pixel(0.1, 16.7e-3, 1e-3, 532e-9, 3840 * 2160) == pytest.approx(
        5.4e5, rel=0.02
    )
    with pytest.raises(ParameterError, match="laser power: expected > 0 W"):
        photons_per_pixel(0.0, 1, 1, 532e-9, 1)
    with pytest.raises(ParameterError, match="efficiency"):
        photons_per_pixel(1.0, 1, 1.5, 532e-9, 1)


def test_mask_efficiency() -> None:
    rng = np.random.default_rng(1)
    spectrum = np.fft.fft2(rng.standard_normal((32, 32)))
    assert mask_efficiency(spectrum, np.ones((32, 32))) == pytest.approx(1)
    mask, _ = passive(np.fft.fft2(rng.standard_normal((32, 32))))
    share = mask_efficiency(spectrum, mask)
    # Exponential statistics of 1,024 intensities: the maximum is about ln(1024) = 7 means.
    assert 1 / 20 < share < 1 / 4


@pytest.mark.parametrize("scheme", ["homodyne"])
def test_predicted_detection_noise_is_what_the_camera_does(scheme: str) -> None:
    rng = np.random.default_rng(2)
    camera = Camera(full_well=10_000, read_noise=20.0, adc_bits=8)
    crest = 3.0
    y_max = np.sqrt(9_000) / 2
    y = np.clip(rng.standard_normal(200_000) * y_max / crest, -y_max, y_max)
    light = homodyne_light(y, y_max)
    seen = [detect(p, camera, 1.0, rng, clip=True).electrons for p in light]
    error = homodyne_join(seen[0], seen[1], y_max) - y
    terms = detection_terms(camera, 9_000, crest, "homodyne")
    measured = error.std() / (y_max / crest)
    # Counts below zero read as zero: at low light the read noise is cut, by a few percent.
    assert measured == pytest.approx(Budget(terms).noise, rel=0.05)
    assert scheme == "homodyne"


def test_predicted_mask_noise_is_what_levels_do() -> None:
    rng = np.random.default_rng(3)
    mask = np.exp(2j * np.pi * rng.uniform(0, 1, 50_000))
    for bits in (4, 8):
        shown = realize(Modulator("phase", 2**bits), mask)
        error = np.sqrt(np.mean(np.abs(shown - mask) ** 2))
        assert mask_phase_term(2**bits).noise == pytest.approx(error, rel=0.02)
    values = rng.uniform(0, 1, 50_000)
    shown = realize(Modulator("amplitude", 16), values)
    crest = 1 / np.sqrt(np.mean(values**2))
    error = np.sqrt(np.mean((shown - values) ** 2) / np.mean(values**2))
    assert input_term(16, crest).noise == pytest.approx(error, rel=0.02)
    assert mask_phase_term(0).noise == input_term(0, crest).noise == 0


def test_waterfall_names_the_limiting_term() -> None:
    budget = Budget((Term("a", 0.03), Term("b", 0.04), Term("c", 0.0)))
    assert budget.noise == pytest.approx(0.05)
    assert budget.limiting.name == "b"
    falls = [snr for _, snr in budget.waterfall()]
    assert falls[0] == pytest.approx(-20 * math.log10(0.03))
    assert falls[1] == falls[2] == pytest.approx(26.02, abs=0.01)
    assert Budget((Term("none", 0.0),)).snr_db is None


def test_full_well_bounds_the_bits() -> None:
    """EMVA's 39.7 and 43.8 dB are 6.3 and 7.0 effective bits; a bit more costs 4 exposures."""
    assert enob(39.7) == pytest.approx(6.3, abs=0.05)
    assert enob(43.8) == pytest.approx(7.0, abs=0.05)
    assert averages_for(40.0, 40.0 + 6.02) == 4
    assert averages_for(50.0, 40.0) == 1
    with pytest.raises(ParameterError, match="peak electrons: expected 0 < peak <= full_well"):
        detection_terms(Camera(full_well=10.0), 20.0, 2.0, "split")
    with pytest.raises(ParameterError, match="crest"):
        detection_terms(Camera(), 20.0, 0.5, "split")


def test_amdahl() -> None:
    assert amdahl(0.5) == 2
    assert amdahl(0.9, 10) == pytest.approx(1 / 0.19)
    assert amdahl(1.0) == math.inf
    with pytest.raises(ParameterError, match="share"):
        amdahl(1.1)


def test_break_even_rate() -> None:
    """DeiT-T, 786 frames against 50 ms: 15.7 kHz if nothing else takes time."""
    assert break_even_rate(786, 0.05, 0.0) == pytest.approx(15_720)
    assert break_even_rate(786, 0.05, 0.05) is None


def test_comparison_shows_all_that_it_includes() -> None:
    text = Comparison(
        digital=0.05,
        digital_what="this CPU, float32, batch 1",
        frames=786,
        sign_frames=2,
        frame_seconds=13.1,
        mask_seconds=0.2,
        readout_seconds=0.007,
        transfer_seconds=0.0016,
        electronic_seconds=0.01,
        headline=setup("hypothetical-4k-2mhz").headline(),
    ).text()
    first, *rest = text.splitlines()
    assert first.startswith("hypothetical set-up")
    assert "not verified" in first
    body = "\n".join(rest)
    for word in (
        "786 frames",
        "2 per signed product",
        "masks",
        "read-out",
        "link",
        "electronics",
    ):
        assert word in body
    assert "at no frame rate" in body
