"""Optical components from data files: every figure with unit, source and whether it was read.

``verified`` means that the figure was read in the source that it names; anything else (memory,
a guess, a wish) is not verified and is announced wherever a result depends on it.
"""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgevit.sim4f.camera import Camera
from edgevit.sim4f.errors import DeviceFileError
from edgevit.sim4f.modulator import Kind, Modulator
from edgevit.sim4f.units import to_si

__all__ = [
    "KEYS",
    "Component",
    "Quantity",
    "camera_of",
    "component",
    "modulator_of",
    "names",
    "parse",
]

# Kind of component -> key -> (dimension, required). One data file a kind.
KEYS: dict[str, dict[str, tuple[str, bool]]] = {
    "modulator": {
        "rows": ("count", True),
        "columns": ("count", True),
        "pitch": ("length", True),
        "bits": ("count", True),
        "frame_rate": ("rate", False),
        "load_time": ("time", False),
        "fill_factor": ("ratio", False),
        "stroke": ("angle", False),
        "power": ("power", False),
    },
    "camera": {
        "rows": ("count", True),
        "columns": ("count", True),
        "pitch": ("length", True),
        "bits": ("count", True),
        "frame_rate": ("rate", True),
        "full_well": ("count", False),
        "read_noise": ("count", False),
        "dark_current": ("current", False),
        "quantum_efficiency": ("ratio", False),
        "nonuniformity": ("ratio", False),
        "power": ("power", False),
    },
    "laser": {"wavelength": ("length", True), "wall_plug": ("ratio", True)},
    "converter": {"dac": ("energy", True), "adc": ("energy", True), "bits": ("count", True)},
    "link": {"bandwidth": ("bandwidth", True), "byte_energy": ("energy", False)},
}
_HEAD = {"title": str, "technology": str, "hypothetical": bool, "table": list}
_ENTRY = {"value", "unit", "source", "verified"}
_PIXELS: dict[str, Kind] = {"phase": "phase", "amplitude": "amplitude", "binary": "binary"}


@dataclass(frozen=True)
class Quantity:
    """A figure in SI units.

    Attributes:
        value: In the SI unit of its dimension.
        source: Where it comes from.
        verified: Whether it was read there.
    """

    value: float
    source: str
    verified: bool


@dataclass(frozen=True)
class Component:
    """A modulator, camera, laser, converter pair or link.

    Attributes:
        name: Name in the catalogue.
        kind: Key of ``KEYS``.
        title: One line for people.
        technology: What a modulator's pixel changes: ``phase``, ``amplitude``, ``binary``.
        hypothetical: True if nobody sells it.
        quantities: Figures by key.
        table: Levels of a modulator, if not uniform.
    """

    name: str
    kind: str
    title: str
    technology: str
    hypothetical: bool
    quantities: Mapping[str, Quantity]
    table: tuple[float, ...] = ()

    def si(self, key: str) -> float:
        """The figure in SI units.

        Raises:
            DeviceFileError: The component does not have it.
        """
        if key not in self.quantities:
            raise DeviceFileError(
                f"{self.kind} {self.name}: expected a figure {key!r}, found "
                f"{', '.join(sorted(self.quantities))}; add it with its source"
            )
        return self.quantities[key].value

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of pixels."""
        return int(self.si("rows")), int(self.si("columns"))

    @property
    def unverified(self) -> tuple[str, ...]:
        """Keys of figures that were not read in a source."""
        return tuple(k for k, q in sorted(self.quantities.items()) if not q.verified)


def component(kind: str, name: str) -> Component:
    """A built-in component.

    Raises:
        DeviceFileError: There is none of that name.
    """
    found = _builtin(kind)
    if name not in found:
        raise DeviceFileError(
            f"unknown {kind} {name!r}: expected one of {', '.join(sorted(found))}"
        )
    return found[name]


def names(kind: str) -> tuple[str, ...]:
    """Names of the built-in components of a kind."""
    return tuple(sorted(_builtin(kind)))


def _builtin(kind: str) -> dict[str, Component]:
    if kind not in KEYS:
        raise DeviceFileError(f"unknown kind {kind!r}: expected one of {', '.join(KEYS)}")
    file = importlib.resources.files("edgevit.sim4f.devices").joinpath(f"{kind}s.toml")
    return parse(file.read_text(encoding="utf-8"), kind, f"{kind}s.toml")


def parse(text: str, kind: str, where: str) -> dict[str, Component]:
    """Components of one kind from TOML: a table a component, a table a figure.

    Raises:
        DeviceFileError: Bad TOML, an unknown key or unit, or a required figure is absent.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise DeviceFileError(f"{where} is not valid TOML: {e}") from e
    return {n: _component(n, kind, body, f"{where}: {n}") for n, body in data.items()}


def _component(name: str, kind: str, body: Any, where: str) -> Component:
    keys = KEYS[kind]
    if not isinstance(body, dict):
        raise DeviceFileError(f"{where}: expected a table, found {body!r}")
    for key in body:
        if key not in keys and key not in _HEAD:
            expected = ", ".join((*_HEAD, *keys))
            raise DeviceFileError(f"{where}: unknown key {key!r}, expected one of {expected}")
    for key, expected_type in _HEAD.items():
        if key in body and not isinstance(body[key], expected_type):
            raise DeviceFileError(
                f"{where}: {key}: expected {expected_type.__name__}, found {body[key]!r}"
            )
    absent = [k for k, (_, required) in keys.items() if required and k not in body]
    if absent:
        raise DeviceFileError(f"{where}: required figures are absent: {', '.join(absent)}")
    figures = {
        k: quantity(body[k], d, f"{where}: {k}") for k, (d, _) in keys.items() if k in body
    }
    return Component(
        name=name,
        kind=kind,
        title=body.get("title", name),
        technology=body.get("technology", ""),
        hypothetical=body.get("hypothetical", False),
        quantities=figures,
        table=tuple(float(t) for t in body.get("table", ())),
    )


def quantity(entry: Any, dimension: str, where: str) -> Quantity:
    """A figure from its table ``{value, unit, source, verified}``.

    Raises:
        DeviceFileError: A key is absent or unknown, or the unit does not fit.
    """
    if not isinstance(entry, dict) or set(entry) != _ENTRY:
        raise DeviceFileError(
            f"{where}: expected a table with {', '.join(sorted(_ENTRY))}, found {entry!r}"
        )
    value = entry["value"]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < float("inf"):
        raise DeviceFileError(f"{where}: expected 0 < value < inf, found {value!r}")
    if not isinstance(entry["verified"], bool) or not entry["source"]:
        raise DeviceFileError(f"{where}: expected a source, and verified = true or false")
    si = to_si(float(value), str(entry["unit"]), dimension, where)
    return Quantity(si, str(entry["source"]), entry["verified"])


def modulator_of(part: Component) -> Modulator:
    """The pixel of a catalogue modulator.

    Raises:
        DeviceFileError: The component is no modulator, or its technology is unknown.
    """
    if part.kind != "modulator" or part.technology not in _PIXELS:
        raise DeviceFileError(
            f"{part.kind} {part.name}: expected a modulator of technology "
            f"{', '.join(_PIXELS)}, found {part.technology!r}"
        )
    levels = 2 ** int(part.si("bits"))
    kind = _PIXELS[part.technology]
    if "stroke" in part.quantities:
        return Modulator(kind, levels, part.table, stroke=part.si("stroke"))
    return Modulator(kind, levels, part.table)


def camera_of(part: Component) -> Camera:
    """The pixel of a catalogue camera; figures that are absent from the file are ideal.

    Raises:
        DeviceFileError: The component is no camera, or lacks a full well for its converter.
    """
    if part.kind != "camera":
        raise DeviceFileError(f"{part.kind} {part.name}: expected a camera")
    optional = ("quantum_efficiency", "read_noise", "dark_current", "nonuniformity")
    known = {k: part.si(k) for k in optional if k in part.quantities}
    return Camera(full_well=part.si("full_well"), adc_bits=int(part.si("bits")), **known)
