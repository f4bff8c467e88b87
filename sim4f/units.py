"""Units of device files, and their factors to SI."""

from __future__ import annotations

from edgevit.sim4f.errors import DeviceFileError

__all__ = ["UNITS", "to_si"]

# Dimension -> unit -> factor to the SI unit (which is the one with factor 1).
UNITS: dict[str, dict[str, float]] = {
    "length": {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9},
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "rate": {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6},
    "power": {"W": 1.0, "mW": 1e-3},
    "energy": {"J": 1.0, "uJ": 1e-6, "nJ": 1e-9, "pJ": 1e-12},
    "bandwidth": {"B/s": 1.0, "MB/s": 1e6, "GB/s": 1e9},
    "angle": {"rad": 1.0, "turn": 6.283185307179586},
    "count": {"px": 1.0, "bit": 1.0, "e-": 1.0},
    "current": {"e-/s": 1.0},
    "ratio": {"1": 1.0, "%": 1e-2},
}


def to_si(value: float, unit: str, dimension: str, where: str) -> float:
    """``value`` in the SI unit of ``dimension``.

    Raises:
        DeviceFileError: The unit is unknown, or of another dimension.
    """
    known = UNITS[dimension]
    if unit not in known:
        raise DeviceFileError(
            f"{where}: expected a {dimension} in {', '.join(known)}, found unit {unit!r}"
        )
    return value * known[unit]
