"""Planes of one frame as pictures: input, mask, Fourier plane, camera."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.errors import UsageError
from edgevit.registry import nearest
from edgevit.sim4f.effects import converted
from edgevit.sim4f.moves import apply
from edgevit.sim4f.place import impulse_response, input_plane
from edgevit.sim4f.program import Optical, frames
from edgevit.targets.optical.study import Subject

__all__ = ["planes", "write_pictures"]

Array = np.ndarray[Any, Any]


def planes(
    subject: Subject, sample: Mapping[str, Array], layer: str, number: int, bits: int
) -> dict[str, Array]:
    """The four planes of a frame, float or complex, zero frequency in the middle.

    Args:
        subject: Opened bundle.
        sample: Input name -> array.
        layer: Name of an optical step.
        number: Frame of the step.
        bits: Of the displayed tensor; 0 for continuous.

    Raises:
        UsageError: No such layer or frame.
    """
    step, x, kernel = _operands(subject, sample, layer)
    every = list(frames(step, subject.program.shapes))
    if not 0 <= number < len(every):
        raise UsageError(
            f"layer {layer!r}: expected 0 <= frame < {len(every)}, found {number}"
        )
    if any(step.joint):
        raise UsageError(
            f"layer {layer!r} is a joint transform, of which no pictures are made",
            hint="compile with attention=mask",
        )
    frame = every[number]
    shown = apply(step.displayed.moves, converted(x[None], bits)[0])[frame.displayed]
    taps = apply(step.masked.moves, kernel)[frame.masked]
    light = input_plane(step, shown)
    spectrum = np.fft.fft2(light)
    mask = np.fft.fft2(impulse_response(step, taps))
    mask /= np.abs(mask).max() or 1.0
    return {
        "input": light,
        "mask": np.fft.fftshift(mask),
        "fourier": np.fft.fftshift(spectrum * mask),
        "camera": np.fft.ifft2(spectrum * mask).real,
    }


def _operands(
    subject: Subject, sample: Mapping[str, Array], layer: str
) -> tuple[Optical, Array, Array]:
    known = [step.name for step in subject.program.optical]
    if layer not in known:
        raise UsageError(f"no optical layer {layer!r}", hint=nearest(layer, known))
    found: list[tuple[Optical, Array, Array]] = []

    def watch(step: Optical, x: Array, kernel: Array, product: Array) -> None:
        if step.name == layer:
            found.append((step, x, kernel))

    executor = subject.executor
    executor.run_with(executor.product, sample, watch)
    return found[0]


def write_pictures(folder: Path, found: Mapping[str, Array]) -> list[Path]:
    """Write PNG files: intensities on a decibel scale; the mask as modulus and phase.

    Returns:
        The files.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "input": _signed(found["input"]),
        "mask-modulus": _bytes(np.abs(found["mask"])),
        "mask-phase": _bytes((np.angle(found["mask"]) + np.pi) / (2 * np.pi)),
        "fourier-intensity": _bytes(_decibels(found["fourier"])),
        "camera-intensity": _bytes(_decibels(found["camera"])),
    }
    paths = []
    for name, picture in pictures.items():
        path = folder / f"{name}.png"
        Image.fromarray(picture).save(path)
        paths.append(path)
    return paths


def _decibels(field: Array, floor: float = -60.0) -> Array:
    """Intensity from ``floor`` dB to 0 dB as 0 to 1."""
    intensity = np.abs(field) ** 2
    top = intensity.max() or 1.0
    level = 10 * np.log10(np.maximum(intensity / top, 10 ** (floor / 10)))
    return np.asarray(1 - level / floor)


def _signed(values: Array) -> Array:
    """Dark gray is negative, middle gray is zero."""
    top = np.abs(values).max() or 1.0
    return _bytes((values / top + 1) / 2)


def _bytes(values: Array) -> Array:
    return np.asarray(np.rint(np.clip(values, 0, 1) * 255), np.uint8)
