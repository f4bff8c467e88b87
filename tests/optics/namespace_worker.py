"""The same optics on numpy and on torch: largest relative differences as JSON on stdout.

Runs where torch and array_api_compat are: ``namespace_worker.py [DEVICE]``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from edgevit.sim4f.correlate import apply, transfer_half
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.fourier import four_f, invert, lens_onto
from edgevit.sim4f.grid import Field, Grid
from edgevit.sim4f.modulator import Modulator, passive, realize
from edgevit.sim4f.offload import Accelerator, OffloadedFast, OffloadedWave
from edgevit.sim4f.pixels import crosstalk, display
from edgevit.sim4f.program import Lattice, Operand, Optical, Read
from edgevit.sim4f.propagate import angular_spectrum, fresnel, pad_field
from edgevit.sim4f.signs import HOMODYNE
from edgevit.sim4f.wave import WaveProduct

GRID = Grid((48, 57), (6e-6, 5e-6), 532e-9)
# Rows and columns of the picture, the kernel, and what is read of them.
SIDES = ((6, 7), (3, 4), (8, 10))
PLM = (0.0, 0.1, 0.15, 0.4, 0.5, 0.7, 0.8, 1.0)


def cases() -> dict[str, Callable[[Any, Any, Any], Any]]:
    """Name -> function of (namespace, complex field values, real values)."""

    def field(z: Any) -> Field:
        return Field(z, GRID)

    return {
        "four_f": lambda xp, z, x: four_f(field(z), z, 0.1, 0.2, xp=xp).values,
        "lens_onto": lambda xp, z, x: lens_onto(field(z), 0.1, GRID, xp=xp).values,
        "invert": lambda xp, z, x: invert(z, xp=xp),
        "fresnel": lambda xp, z, x: fresnel(field(z), 1e-3, xp=xp).values,
        "angular": lambda xp, z, x: angular_spectrum(field(z), 1e-3, xp=xp).values,
        "pad": lambda xp, z, x: pad_field(field(z), (60, 70), xp=xp).values,
        "apply": lambda xp, z, x: apply(x, transfer_half(x, xp=xp), xp=xp),
        "crosstalk": lambda xp, z, x: crosstalk(x, 1.2, xp=xp),
        "display": lambda xp, z, x: display(field(z), 3, 0.8, 0.1, xp=xp).values,
        "complex": lambda xp, z, x: _shown(Modulator("complex", 64), z, xp),
        "double": lambda xp, z, x: _shown(Modulator("double-phase", 64), z, xp),
        "table": lambda xp, z, x: _shown(Modulator("phase", 8, PLM, stroke=5.5), z, xp),
        "angle": lambda xp, z, x: _shown(Modulator("phase", 8), x, xp),
        "levels": lambda xp, z, x: _shown(Modulator("amplitude", 8, PLM), xp.abs(x), xp),
        "amplitude": lambda xp, z, x: _shown(Modulator("amplitude", 16), xp.abs(x), xp),
    }


def _shown(modulator: Modulator, wanted: Any, xp: Any) -> Any:
    return realize(modulator, passive(wanted, xp=xp)[0], xp=xp)


def paths(at: Accelerator) -> dict[str, float]:
    """Both paths of a frame program on the accelerator against the host's."""
    lattices = [(Lattice(0, ((r, 1),)), Lattice(0, ((c, 1),))) for r, c in SIDES]
    step = Optical(
        name="y",
        mapping="test",
        source="x",
        kernel="k",
        static=True,
        plane=(16, 21),
        displayed=Operand((), "n", *lattices[0]),
        masked=Operand((), "m", *lattices[1]),
        read=Read("nm", *lattices[2], ()),
        order="mn",
        signs=HOMODYNE,
        bias="",
        macs=0,
    )
    rng = np.random.default_rng(2)
    x, k = rng.standard_normal((2, *SIDES[0])), rng.standard_normal((3, *SIDES[1]))
    shapes = {"x": x.shape, "k": k.shape}
    levels = Effects(mask=Modulator("double-phase", 64), shift=(0.2, -0.1))
    pairs: dict[str, tuple[Any, Any]] = {
        "fast": (FastProduct(shapes), OffloadedFast(shapes, at)),
        "wave": (
            WaveProduct(shapes, dtype=np.float64),
            OffloadedWave(shapes, at, dtype=np.float64),
        ),
        "wave of levels": (
            WaveProduct(shapes, levels, dtype=np.float64),
            OffloadedWave(shapes, at, effects=levels, dtype=np.float64),
        ),
    }
    found = {}
    for name, (host, there) in pairs.items():
        expected = host(step, x, k)
        found[name] = float(
            np.abs(there(step, x, k) - expected).max() / np.abs(expected).max()
        )
    return found


def main(device: str) -> None:
    """Compare and print."""
    torch: Any = import_module("torch")
    xp: Any = import_module("array_api_compat.torch")
    rng = np.random.default_rng(1)
    x = rng.standard_normal(GRID.shape)
    z = x + 1j * rng.standard_normal(GRID.shape)
    found = {}
    for name, case in cases().items():
        expected = case(np, z, x)
        there = case(xp, torch.asarray(z, device=device), torch.asarray(x, device=device))
        got = there.cpu().numpy()
        found[name] = float(np.abs(got - expected).max() / np.abs(expected).max())
    found |= paths(Accelerator(xp, device))
    print(json.dumps(found))  # noqa: T201 -- the worker's answer


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cpu")
