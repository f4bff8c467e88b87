"""Other packages' optics as oracles, 20 random configurations each."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit.sim4f.fourier import four_f, lens
from edgevit.sim4f.grid import Field, Grid, critical_pitch
from edgevit.sim4f.propagate import fresnel, thin_lens

REPO = Path(__file__).resolve().parents[2]
PYTHON = REPO / ".venv-optics-oracles" / "bin" / "python"
WORKER = Path(__file__).with_name("oracle_worker.py")
COUNT = 20
Config = dict[str, Any]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not PYTHON.exists(), reason="needs `make optics-oracles`"),
]


def answers(oracle: str, configs: list[Config], folder: Path) -> list[dict[str, Any]]:
    """The oracle's fields for each configuration."""
    source, target = folder / "in.npz", folder / "out.npz"
    np.savez(source, **{f"{i}.{k}": v for i, c in enumerate(configs) for k, v in c.items()})
    command = [str(PYTHON), str(WORKER), oracle, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = [{} for _ in configs]
    with np.load(target) as data:
        for name in data.files:
            which, key = name.split(".")
            found[int(which)][key] = data[name]
    return found


def worst(found: Any, expected: Any) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def four_f_configs() -> Iterator[tuple[Config, Field, Any]]:
    """Rectangular planes, odd and even, f1 != f2, pitches that differ along y and x."""
    rng = np.random.default_rng(11)
    for _ in range(COUNT):
        shape = (int(rng.integers(20, 90)), int(rng.integers(20, 90)))
        f1, f2 = (float(f) for f in rng.uniform(0.03, 0.5, 2))
        pitch = (float(rng.uniform(3e-6, 2e-5)), float(rng.uniform(3e-6, 2e-5)))
        grid = Grid(shape, pitch, float(rng.uniform(4e-7, 1e-6)))
        field = Field(noise(rng, shape), grid)
        mask = noise(rng, shape)
        fourier = grid.behind_lens(f1)
        config: Config = {
            "shape": shape,
            "pitch0": pitch,
            "pitch1": fourier.pitch,
            "pitch2": fourier.behind_lens(f2).pitch,
            "wavelength": grid.wavelength,
            "f1": f1,
            "f2": f2,
            "field": field.values,
            "mask": mask,
        }
        yield config, field, mask


def test_hcipy_agrees_in_every_plane(tmp_path: Path) -> None:
    cases = list(four_f_configs())
    for found, (config, field, mask) in zip(
        answers("hcipy", [c for c, _, _ in cases], tmp_path), cases, strict=True
    ):
        fourier = lens(field, config["f1"])
        assert worst(fourier.values, found["fourier"]) < 1e-12
        whole = four_f(field, mask, config["f1"], config["f2"])
        assert worst(whole.values, found["output"]) < 1e-12
        # The oracle notices a wrong focal length and a lost sign.
        other = four_f(field, mask, config["f1"], 1.001 * config["f2"])
        assert worst(other.values, found["output"]) > 5e-4
        assert worst(-whole.values, found["output"]) > 1


def band_limited(rng: np.random.Generator, n: int) -> Any:
    """Random field of the inner quarter of the band."""
    spectrum = np.zeros((n, n), complex)
    low = n // 8
    index = np.r_[0:low, n - low : n]
    spectrum[np.ix_(index, index)] = noise(rng, (2 * low, 2 * low))
    return np.fft.ifft2(spectrum)


def test_lightpipes_agrees_on_band_limited_fields(tmp_path: Path) -> None:
    """Square planes only; its pi has ten digits and its centring needs even N."""
    rng = np.random.default_rng(12)
    cases: list[Config] = []
    for _ in range(COUNT):
        n = 2 * int(rng.integers(20, 70))
        wavelength, pitch = float(rng.uniform(4e-7, 1e-6)), float(rng.uniform(5e-6, 2e-5))
        longest = n * pitch**2 / wavelength
        distance = float(rng.uniform(0.05, 1)) * longest
        field = band_limited(rng, n)
        cases.append(
            {"field": field, "wavelength": wavelength, "pitch": pitch, "distance": distance}
        )
    for found, case in zip(answers("lightpipes", cases, tmp_path), cases, strict=True):
        grid = Grid(case["field"].shape, (case["pitch"],) * 2, case["wavelength"])
        ours = fresnel(Field(case["field"], grid), case["distance"])
        assert worst(ours.values, found["output"]) < 2e-5
        off = fresnel(Field(case["field"], grid), 0.99 * case["distance"])
        assert worst(off.values, found["output"]) > 2e-5


def test_torchoptics_agrees_on_fresnel_propagation(tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    cases: list[Config] = []
    for _ in range(COUNT):
        shape = (int(rng.integers(20, 90)), int(rng.integers(20, 90)))
        pitch = (float(rng.uniform(5e-6, 2e-5)), float(rng.uniform(5e-6, 2e-5)))
        wavelength = float(rng.uniform(4e-7, 1e-6))
        longest = min(n * p**2 / wavelength for n, p in zip(shape, pitch, strict=True))
        cases.append(
            {
                "field": noise(rng, shape),
                "wavelength": wavelength,
                "pitch": pitch,
                "distance": float(rng.uniform(0.05, 1)) * longest,
            }
        )
    for found, case in zip(answers("torchoptics", cases, tmp_path), cases, strict=True):
        grid = Grid(case["field"].shape, case["pitch"], case["wavelength"])
        ours = fresnel(Field(case["field"], grid), case["distance"])
        assert worst(ours.values, found["output"]) < 1e-12
        off = fresnel(Field(case["field"], grid), 0.999 * case["distance"])
        assert worst(off.values, found["output"]) > 1e-5


def test_torchoptics_agrees_on_propagation_lens_propagation(tmp_path: Path) -> None:
    """Odd N, where both centrings agree (it centres even planes between pixels).

    For even N the chain is one DFT (``test_propagate``); for odd N it is not, in either
    package: the chirps at critical sampling do not close on an odd circle.
    """
    rng = np.random.default_rng(14)
    cases: list[Config] = []
    for _ in range(COUNT):
        n = 2 * int(rng.integers(10, 40)) + 1
        wavelength, focal = float(rng.uniform(4e-7, 1e-6)), float(rng.uniform(0.02, 0.3))
        pitch = critical_pitch(n, wavelength, focal)
        cases.append(
            {
                "field": noise(rng, (n, n)),
                "wavelength": wavelength,
                "pitch": (pitch, pitch),
                "focal": focal,
            }
        )
    for found, case in zip(answers("torchoptics-chain", cases, tmp_path), cases, strict=True):
        grid = Grid(case["field"].shape, case["pitch"], case["wavelength"])
        field, focal = Field(case["field"], grid), case["focal"]
        chain = fresnel(thin_lens(fresnel(field, focal), focal), focal)
        assert worst(chain.values, found["output"]) < 1e-12
