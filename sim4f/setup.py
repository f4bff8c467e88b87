"""A whole 4f system: components and geometry, from ``devices/setups.toml`` or a file like it.

What is impossible is refused when the set-up is made (a wavelength of zero, a camera smaller
than a pixel); what merely loses light or field is reported by ``findings``.
"""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgevit.sim4f import sampling
from edgevit.sim4f.catalogue import Component, Quantity, component, quantity
from edgevit.sim4f.errors import DeviceFileError, Finding, require
from edgevit.sim4f.grid import Grid

__all__ = ["Setup", "parse_setups", "setup", "setup_names"]

_PARTS = {
    "input": "modulator",
    "mask": "modulator",
    "camera": "camera",
    "laser": "laser",
    "converters": "converter",
    "link": "link",
}
_FIGURES = {
    "focal1": "length",
    "focal2": "length",
    "laser_power": "power",
    "efficiency": "ratio",
    "exposure": "time",
}


@dataclass(frozen=True)
class Setup:
    """Components and geometry of a 4f system.

    Attributes:
        name: Name in the file.
        title: One line for people.
        parts: ``input``, ``mask``, ``camera``, ``laser``, ``converters``, ``link``.
        figures: ``focal1``, ``focal2`` (m), ``laser_power`` (W), ``efficiency`` (of the light
            from laser to camera, mask apart), ``exposure`` (s).

    Raises:
        ParameterError: An efficiency above 1.
    """

    name: str
    title: str
    parts: Mapping[str, Component]
    figures: Mapping[str, Quantity]

    def __post_init__(self) -> None:
        share = self.figures["efficiency"].value
        require(share <= 1, f"efficiency of set-up {self.name}", "<= 1", share)

    @property
    def wavelength(self) -> float:
        """In m."""
        return self.parts["laser"].si("wavelength")

    @property
    def hypothetical(self) -> bool:
        """True if any component is one that nobody sells."""
        return any(p.hypothetical for p in self.parts.values())

    @property
    def unverified(self) -> tuple[str, ...]:
        """Figures that were not read in a source, as ``part.key``."""
        of_parts = tuple(f"{n}.{k}" for n, p in self.parts.items() for k in p.unverified)
        own = tuple(k for k, q in self.figures.items() if not q.verified)
        return of_parts + own

    def grid(self, part: str) -> Grid:
        """Plane of ``input``, ``mask`` or ``camera``."""
        device = self.parts[part]
        pitch = device.si("pitch")
        return Grid(device.shape, (pitch, pitch), self.wavelength)

    def findings(self) -> tuple[Finding, ...]:
        """Whether the mask covers the band and resolves the field of the input plane."""
        source, mask = self.grid("input"), self.grid("mask")
        focal = self.figures["focal1"].value
        band = sampling.band_coverage(source, mask, focal)
        return band + sampling.field_coverage(source, mask, focal)

    def headline(self) -> str:
        """First line of any report: what is hypothetical, what was not verified."""
        kind = "hypothetical set-up" if self.hypothetical else "set-up"
        if not self.unverified:
            return f"{kind} {self.name}: every figure was read in its source"
        return f"{kind} {self.name}; not verified: {', '.join(self.unverified)}"


def setup(name: str) -> Setup:
    """A built-in set-up.

    Raises:
        DeviceFileError: There is none of that name.
    """
    found = _builtin()
    if name not in found:
        raise DeviceFileError(
            f"unknown set-up {name!r}: expected one of {', '.join(sorted(found))}"
        )
    return found[name]


def setup_names() -> tuple[str, ...]:
    """Names of the built-in set-ups."""
    return tuple(sorted(_builtin()))


def _builtin() -> dict[str, Setup]:
    file = importlib.resources.files("edgevit.sim4f.devices").joinpath("setups.toml")
    return parse_setups(file.read_text(encoding="utf-8"), "setups.toml")


def parse_setups(text: str, where: str) -> dict[str, Setup]:
    """Set-ups from TOML: a table a set-up, names of components, a table a figure.

    Raises:
        DeviceFileError: Bad TOML, an unknown key, unit or component, or something absent.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise DeviceFileError(f"{where} is not valid TOML: {e}") from e
    return {n: _setup(n, body, f"{where}: {n}") for n, body in data.items()}


def _setup(name: str, body: Any, where: str) -> Setup:
    expected = {"title", *_PARTS, *_FIGURES}
    if not isinstance(body, dict):
        raise DeviceFileError(f"{where}: expected a table, found {body!r}")
    for key in sorted(expected ^ set(body)):
        state = "unknown key" if key in body else "absent key"
        raise DeviceFileError(f"{where}: {state} {key!r}, expected {', '.join(expected)}")
    parts = {part: component(kind, str(body[part])) for part, kind in _PARTS.items()}
    figures = {k: quantity(body[k], d, f"{where}: {k}") for k, d in _FIGURES.items()}
    return Setup(name, str(body["title"]), parts, figures)
