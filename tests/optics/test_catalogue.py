"""Device files: complete, sourced, and strict."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from edgevit.sim4f.catalogue import (
    KEYS,
    Quantity,
    camera_of,
    component,
    modulator_of,
    names,
    parse,
)
from edgevit.sim4f.errors import DeviceFileError, OpticsError
from edgevit.sim4f.setup import parse_setups, setup, setup_names
from edgevit.sim4f.units import UNITS, to_si

FIGURE = '{ value = 1, unit = "px", source = "s", verified = true }'
LENGTH = '{ value = 8, unit = "um", source = "s", verified = false }'
GOOD = f"""
[x]
title = "X"
technology = "phase"
rows = {FIGURE}
columns = {FIGURE}
pitch = {LENGTH}
bits = {FIGURE}
"""


@pytest.mark.parametrize("kind", KEYS)
def test_every_component_has_sources(kind: str) -> None:
    assert names(kind)
    for name in names(kind):
        part = component(kind, name)
        assert part.title
        for figure in part.quantities.values():
            assert len(figure.source) > 3
            assert not (figure.verified and "memory" in figure.source)
        if part.hypothetical:
            assert part.unverified


def test_modulators_and_cameras_become_pixels() -> None:
    assert modulator_of(component("modulator", "holoeye-gaea2")).levels == 256
    assert modulator_of(component("modulator", "ti-dlp9500")).kind == "binary"
    assert component("modulator", "ti-dlp9500").si("frame_rate") == 23148
    camera = camera_of(component("camera", "sony-imx420"))
    assert (camera.full_well, camera.read_noise, camera.adc_bits) == (24000, 6.2, 12)
    assert camera.nonuniformity == 0
    figure = Quantity(0.01, "a data sheet", True)
    part = component("camera", "sony-imx420")
    known = replace(part, quantities={**part.quantities, "nonuniformity": figure})
    assert camera_of(known).nonuniformity == 0.01


def test_units_are_converted() -> None:
    part = parse(GOOD, "modulator", "here")["x"]
    assert part.si("pitch") == pytest.approx(8e-6)
    assert part.unverified == ("pitch",)
    assert all(1.0 in units.values() for units in UNITS.values())


def replaced(old: str, new: str) -> Callable[[], object]:
    assert old in GOOD
    return lambda: parse(GOOD.replace(old, new), "modulator", "here")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (replaced("technology", "tecnology"), "here: x: unknown key 'tecnology', expected"),
        (replaced('"um"', '"furlong"'), "here: x: pitch: expected a length in m, mm, um, nm"),
        (replaced('"um"', '"Hz"'), "found unit 'Hz'"),
        (replaced("value = 8", "value = -8"), "expected 0 < value < inf, found -8"),
        (replaced("value = 8", "value = true"), "expected 0 < value < inf, found True"),
        (replaced("value = 8", 'value = "8"'), "expected 0 < value < inf"),
        (
            replaced('source = "s", verified = false', "verified = false"),
            "expected a table with",
        ),
        (
            replaced('source = "s", verified = false', 'source = "", verified = false'),
            "a source",
        ),
        (replaced("verified = false", 'verified = "no"'), "verified = true or false"),
        (replaced(f"columns = {FIGURE}", ""), "required figures are absent: columns"),
        (replaced("[x]", "[x"), "is not valid TOML"),
        (replaced('title = "X"', "title = 3"), "title: expected str"),
        (lambda: parse("x = 3", "modulator", "here"), "expected a table, found 3"),
        (
            lambda: component("modulator", "nothing"),
            "unknown modulator 'nothing': expected one",
        ),
        (lambda: names("lens"), "unknown kind 'lens'"),
        (lambda: component("laser", "laser-532").si("power"), "expected a figure 'power'"),
        (lambda: to_si(1.0, "inch", "length", "w"), "found unit 'inch'"),
        (
            lambda: camera_of(component("camera", "basler-boa4096-93cm")),
            "expected a figure 'full_well'",
        ),
        (lambda: camera_of(component("laser", "laser-532")), "expected a camera"),
        (lambda: modulator_of(component("laser", "laser-532")), "expected a modulator"),
        (lambda: setup("nothing"), "unknown set-up 'nothing'"),
    ],
)
def test_bad_device_files_are_refused(broken: Callable[[], object], message: str) -> None:
    with pytest.raises(DeviceFileError, match=re.escape(message)):
        broken()


@pytest.mark.parametrize("name", setup_names())
def test_headline_says_what_is_not_known(name: str) -> None:
    system = setup(name)
    line = system.headline()
    for figure in system.unverified:
        assert figure in line
    assert line.startswith("hypothetical") == system.hypothetical
    assert system.grid("camera").wavelength == system.wavelength
    assert len(system.findings()) == 4


SETUP = """
[s]
title = "S"
input = "ti-dlp9500"
mask = "holoeye-pluto21"
camera = "sony-imx535"
laser = "laser-532"
converters = "converters-8bit"
link = "cxp12-x4"
"""
FIGURES = {
    "focal1": '100, unit = "mm"',
    "focal2": '100, unit = "mm"',
    "laser_power": '1, unit = "W"',
    "efficiency": '0.5, unit = "1"',
    "exposure": '1, unit = "ms"',
}


def written(**change: str) -> str:
    figures = {**FIGURES, **change}
    return SETUP + "\n".join(
        f'{k} = {{ value = {v}, source = "s", verified = true }}' for k, v in figures.items()
    )


def test_setups_of_ones_own() -> None:
    system = parse_setups(written(), "mine")["s"]
    assert system.figures["focal1"].value == 0.1
    assert not system.hypothetical
    # Short lens for these pixels: the mask's replicas overlap, and the finding says so.
    broken = [f for f in system.findings() if not f.holds]
    assert broken
    assert all("violated" in str(f) for f in broken)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (written(extra='1, unit = "m"'), "unknown key 'extra'"),
        (written().replace("link", "lnk"), "mine: s: absent key 'link'"),
        (written(efficiency='1.5, unit = "1"'), "efficiency of set-up s: expected <= 1"),
        (written(exposure='0, unit = "s"'), "exposure: expected 0 < value"),
        (written().replace("sony-imx535", "sony"), "unknown camera 'sony'"),
        ("s = 1", "expected a table"),
        ("[s", "is not valid TOML"),
    ],
)
def test_bad_setups_are_refused(text: str, message: str) -> None:
    with pytest.raises(OpticsError, match=re.escape(message)):
        parse_setups(text, "mine")
