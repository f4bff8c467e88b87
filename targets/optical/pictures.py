"""Planes of one frame as pictures: input, mask, Fourier plane, camera."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.errors import UsageError
from edgevit.registry import nearest
from edgevit.sim4f.camera import detect
from edgevit.sim4f.deform import shown_mask
from edgevit.sim4f.disturb import laser_factors
from edgevit.sim4f.effects import Effects, converted
from edgevit.sim4f.light import gains_of, speckle_of
from edgevit.sim4f.modulator import passive
from edgevit.sim4f.moves import apply
from edgevit.sim4f.place import impulse_response, input_plane
from edgevit.sim4f.program import Optical, frames
from edgevit.sim4f.signs import Exposure, part_of
from edgevit.sim4f.wave import lens_phases, mask_ramp
from edgevit.targets.optical.study import Point, Subject, check_shift, effects_of

__all__ = ["check_layer", "planes", "write_pictures"]

Array = np.ndarray[Any, Any]


def planes(
    subject: Subject,
    sample: Mapping[str, Array],
    layer: str,
    number: int,
    point: Point,
    seed: int = 0,
) -> dict[str, Array]:
    """The four planes of a frame on a device, float or complex, zero frequency in the middle.

    The camera's is the signal's field where it is known exactly, and the electrons of the
    first exposure, reference wave included, where photons are counted.

    Args:
        subject: Opened bundle, calibrated if photons are counted.
        sample: Input name -> array.
        layer: Name of an optical step.
        number: Frame of the step.
        point: The device.
        seed: Of the camera's noise.

    Raises:
        UsageError: No such layer or frame, or an impossible device.
    """
    effects = effects_of(point)
    check_shift(subject, effects)
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
    frame, first = every[number], step.signs.exposures[0]
    shown = converted(x[None], effects.display_bits)[0]
    shown = apply(step.displayed.moves, part_of(shown, first.displayed))[frame.displayed]
    taps = apply(step.masked.moves, part_of(kernel, first.masked))[frame.masked]
    light = input_plane(step, shown)
    mask, top = _mask(step, taps, effects)
    behind = np.fft.fft2(light) * mask
    field = np.fft.ifft2(behind) * top
    return {
        "input": light,
        "mask": np.fft.fftshift(mask),
        "fourier": np.fft.fftshift(behind),
        **_camera(field, subject.full.get(layer, 1.0), first, effects, seed),
    }


def _mask(step: Optical, taps: Array, effects: Effects) -> tuple[Array, float]:
    """What the modulator and the lenses do to each frequency, and the brightness lost."""
    response = impulse_response(step, taps.astype(np.float64))
    spectrum = np.fft.fft2(response * mask_ramp(effects.shift, step.plane, response.dtype))
    if not spectrum.any():
        return spectrum, 1.0
    wanted, top = passive(spectrum)
    lenses = lens_phases(step.plane, effects.aberration, spectrum.dtype)
    shown, dim = shown_mask(wanted, effects)
    return np.asarray(shown * lenses), top * dim


def _camera(
    field: Array, full: float, first: Exposure, effects: Effects, seed: int
) -> dict[str, Array]:
    if not effects.counts:
        return {"camera-intensity": field.real}
    plane, fixed = (field.shape[0], field.shape[1]), effects.pattern_seed
    camera, rng = effects.camera, np.random.default_rng(seed)
    relative = field / full + first.reference
    if effects.speckle:
        relative = relative + speckle_of(plane, effects.speckle, fixed)
    arriving = np.abs(relative) ** 2 * effects.photons
    if effects.laser_noise:
        arriving *= laser_factors(effects.laser_noise, 1, rng).clip(0)
    arriving += effects.background
    spread = camera.nonuniformity
    gains = gains_of(plane, spread, fixed) if spread else None
    seen = detect(arriving, camera, effects.exposure, rng, gains=gains, clip=True)
    return {"camera-electrons": seen.electrons}


def check_layer(subject: Subject, layer: str) -> None:
    """Refuse a layer that light does not compute.

    Raises:
        UsageError: The hint has the name that comes nearest.
    """
    known = [step.name for step in subject.program.optical]
    if layer not in known:
        raise UsageError(f"no optical layer {layer!r}", hint=nearest(layer, known))


def _operands(
    subject: Subject, sample: Mapping[str, Array], layer: str
) -> tuple[Optical, Array, Array]:
    check_layer(subject, layer)
    found: list[tuple[Optical, Array, Array]] = []

    def watch(step: Optical, x: Array, kernel: Array, product: Array) -> None:
        if step.name == layer:
            found.append((step, x, kernel))

    executor = subject.executor
    executor.run_with(executor.product, sample, watch)
    return found[0]


def write_pictures(folder: Path, found: Mapping[str, Array]) -> list[Path]:
    """Write PNG files.

    Intensities are on a decibel scale, the mask is shown as modulus and phase, electrons from
    none (black) to the most (white).

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
    }
    if "camera-intensity" in found:
        pictures["camera-intensity"] = _bytes(_decibels(found["camera-intensity"]))
    else:
        electrons = found["camera-electrons"]
        pictures["camera-electrons"] = _bytes(electrons / (electrons.max() or 1.0))
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
