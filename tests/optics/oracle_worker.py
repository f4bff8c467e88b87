"""Runs another package's optics in its own environment: ``worker.py ORACLE IN.npz OUT.npz``.

IN holds arrays named ``<configuration>.<key>``; OUT gets fields named alike. Nothing of
edgevit is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

Config = dict[str, Any]


def hcipy_four_f(config: Config) -> dict[str, Any]:
    """Lens, mask, lens with Fraunhofer propagators by matrix Fourier transforms."""
    hcipy: Any = import_module("hcipy")

    def grid(shape: Any, pitch: Any) -> Any:
        dims = np.array([shape[1], shape[0]])
        delta = np.array([pitch[1], pitch[0]], dtype=float)
        zero = -(dims // 2) * delta
        return hcipy.CartesianGrid(hcipy.RegularCoords(delta, dims, zero))

    planes = [grid(config["shape"], config[k]) for k in ("pitch0", "pitch1", "pitch2")]
    values = hcipy.Field(config["field"].ravel(), planes[0])
    wavelength = float(config["wavelength"])
    found = {}
    for i, focal in enumerate((float(config["f1"]), float(config["f2"]))):
        scale = 2 * np.pi / (focal * wavelength)
        transform = hcipy.MatrixFourierTransform(planes[i], planes[i + 1].scaled(scale))
        values = transform.forward(values) / (1j * focal * wavelength)
        shaped = np.asarray(values).reshape(tuple(config["shape"]))
        found["fourier" if i == 0 else "output"] = shaped
        if i == 0:
            values = hcipy.Field((shaped * config["mask"]).ravel(), planes[1])
    return found


def lightpipes_forvard(config: Config) -> dict[str, Any]:
    """One propagation, without the piston that the package writes with its own pi."""
    pipes: Any = import_module("LightPipes")

    n, distance = len(config["field"]), float(config["distance"])
    wavelength = float(config["wavelength"])
    beam = pipes.Begin(float(config["pitch"]) * n, wavelength, n)
    beam.field = np.array(config["field"], dtype=complex)
    piston = 2.0 * 3.141592654 / wavelength * distance
    return {"output": pipes.Forvard(beam, distance).field * np.exp(-1j * piston)}


def torchoptics_fresnel(config: Config) -> dict[str, Any]:
    """One cyclic propagation by the Fresnel transfer function, piston taken off."""
    torch: Any = import_module("torch")
    field_of: Any = import_module("torchoptics").Field

    wavelength = torch.tensor(float(config["wavelength"]), dtype=torch.double)
    distance = torch.tensor(float(config["distance"]), dtype=torch.double)
    spacing = torch.tensor(np.asarray(config["pitch"], dtype=float))
    field = field_of(torch.tensor(config["field"]), wavelength, 0, spacing)
    moved = field.propagate_to_z(
        distance, propagation_method="ASM_FRESNEL", asm_pad=(0, 0), interpolation_mode="none"
    )
    piston = torch.exp(1j * (2 * torch.pi / wavelength) * distance)
    return {"output": (moved.data / piston).numpy()}


def torchoptics_chain(config: Config) -> dict[str, Any]:
    """Propagation, thin lens, propagation; odd planes, where both centrings agree."""
    torch: Any = import_module("torch")
    field_of: Any = import_module("torchoptics").Field
    profiles: Any = import_module("torchoptics.profiles")

    wavelength = torch.tensor(float(config["wavelength"]), dtype=torch.double)
    focal = torch.tensor(float(config["focal"]), dtype=torch.double)
    spacing = torch.tensor(np.asarray(config["pitch"], dtype=float))
    shape = config["field"].shape
    how = {
        "propagation_method": "ASM_FRESNEL",
        "asm_pad": (0, 0),
        "interpolation_mode": "none",
    }
    field = field_of(torch.tensor(config["field"]), wavelength, 0, spacing)
    field = field.propagate_to_z(focal, **how)
    phase = profiles.lens_phase(shape, focal, wavelength, spacing)
    field = field.copy(data=field.data * torch.exp(1j * phase))
    field = field.propagate_to_z(2 * focal, **how)
    piston = torch.exp(1j * (2 * torch.pi / wavelength) * focal)
    return {"output": (field.data / piston**2).numpy()}


ORACLES: dict[str, Callable[[Config], dict[str, Any]]] = {
    "hcipy": hcipy_four_f,
    "lightpipes": lightpipes_forvard,
    "torchoptics": torchoptics_fresnel,
    "torchoptics-chain": torchoptics_chain,
}


def main(oracle: str, source: str, target: str) -> None:
    """Run every configuration of ``source``."""
    configs: dict[str, Config] = {}
    with np.load(source) as data:
        for name in data.files:
            which, key = name.split(".")
            configs.setdefault(which, {})[key] = data[name]
    found = {
        f"{which}.{key}": value
        for which, config in configs.items()
        for key, value in ORACLES[oracle](config).items()
    }
    np.savez(target, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
