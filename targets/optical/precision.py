"""What limits the precision of each layer: signal-to-noise ratios of a calibrated program.

Every noise is relative to the root mean square of what a layer computes, measured on samples
by the ideal device. Light is counted on the camera pixel whose field is the layer's full
scale: with a passive mask it is ``n (y_max / (x_max H_max))^2`` photons, where ``n`` arrive
from an input pixel at full brightness and ``H_max`` is the largest modulus of the layer's
transfer function, which a mask can only dim to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgevit.sim4f.budget import (
    Budget,
    Term,
    detection_terms,
    enob,
    input_term,
    photons_per_pixel,
)
from edgevit.sim4f.camera import Camera
from edgevit.sim4f.catalogue import camera_of
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.errors import OpticsError
from edgevit.sim4f.joint import first_pass_sigma
from edgevit.sim4f.modulator import Modulator
from edgevit.sim4f.moves import apply
from edgevit.sim4f.perturb import level_error, peak
from edgevit.sim4f.program import Optical, sizes
from edgevit.sim4f.sensitivity import misplacement_error
from edgevit.sim4f.setup import Setup
from edgevit.targets.optical.study import Levels, Point, Subject, effects_of

__all__ = ["Precision", "Sight", "layer_budget", "on_point", "on_setup", "photon_rate"]
__all__ += ["top_of"]

Array = np.ndarray[Any, Any]
WELL = "shot noise at the full well"
LIGHT = "shot noise of the light"


@dataclass(frozen=True)
class Sight:
    """A device as one layer meets it.

    Attributes:
        photons: At full scale on a camera pixel in one exposure, reference apart.
        capped: The full well allows no more.
        camera: The sensor.
        input_bits: Of the displayed magnitude; 0 for continuous.
        mask_sigma: Standard deviation of a mask pixel's error, of modulus 1 at most.
        shift: Displacement of the mask along y and x, in mask pixels.
    """

    photons: float
    capped: bool
    camera: Camera
    input_bits: int
    mask_sigma: float
    shift: tuple[float, float]


@dataclass(frozen=True)
class Precision:
    """A layer's budget.

    Attributes:
        layer: Name of the step.
        photons: See ``Sight``; inf for a field known exactly.
        budget: Noise terms in the order in which light meets them.
    """

    layer: str
    photons: float
    budget: Budget

    def to_json(self) -> dict[str, Any]:
        """Plain values; a term that is absent is ``null``."""
        total = self.budget.snr_db
        return {
            "layer": self.layer,
            "photons": self.photons if math.isfinite(self.photons) else None,
            "terms": {t.name: t.snr_db for t in self.budget.terms},
            "waterfall": dict(self.budget.waterfall()),
            "snr_db": total,
            "enob": None if total is None else enob(total),
            "limiting": None if total is None else self.budget.limiting.name,
        }


def layer_budget(
    step: Optical,
    shapes: Mapping[str, Any],
    levels: Levels,
    top: float,
    seen: Sight,
    kernel: Array,
) -> Budget:
    """The noise terms of a layer.

    Args:
        step: The step.
        shapes: Of its tensors.
        levels: Of its tensors, measured.
        top: Largest modulus of its transfer functions.
        seen: The device.
        kernel: Its kernel, or an example of it.
    """
    area = step.plane[0] * step.plane[1]
    terms = math.prod([sizes(step, shapes)[s] for s in step.summed] or [1])
    mask = seen.mask_sigma * top * math.sqrt(terms * levels.light / area) / levels.rms
    found = [
        input_term(2**seen.input_bits if seen.input_bits else 0, levels.top / levels.shown),
        Term("mask levels", mask),
        Term("mask position", misplacement_error(step, seen.shift)),
    ]
    found += first_pass(step, levels, kernel, seen, terms)
    if math.isfinite(seen.photons):
        found += _detection(step, levels, seen, terms)
    return Budget(tuple(found))


def _detection(step: Optical, levels: Levels, seen: Sight, terms: int) -> list[Term]:
    """Shot, read-out and converter noise; every term of an electronic sum has its own."""
    homodyne = step.signs.detector == "intensity"
    electrons = seen.photons * seen.camera.quantum_efficiency * (4 if homodyne else 1)
    shot, read, converter = detection_terms(
        seen.camera,
        min(electrons, seen.camera.full_well),
        levels.full / levels.rms,
        "homodyne" if homodyne else "split",
    )
    # The terms above are of two exposures.
    scale = math.sqrt(terms * len(step.signs.exposures) / 2)
    return [
        Term(WELL if seen.capped else LIGHT, shot.noise * scale),
        Term(read.name, read.noise * scale),
        Term(converter.name, converter.noise * scale),
    ]


def first_pass(
    step: Optical, levels: Levels, kernel: Array, seen: Sight, terms: int
) -> tuple[Term, ...]:
    """What the camera of a joint transform's first exposure adds; nothing for other steps.

    Sums of moduli are those of normal numbers, ``sqrt(2 / pi)`` of their root mean square.
    """
    if not any(step.joint) or not math.isfinite(seen.photons):
        return ()
    taps = apply(step.masked.moves, kernel).astype(np.float64)
    masks = taps.reshape(-1, *taps.shape[-2:])
    largest = float(np.abs(masks).max()) or 1.0
    lit = levels.light / levels.shown**2
    shown = lit * levels.shown / levels.top * math.sqrt(2 / math.pi)
    sums = shown + np.abs(masks / largest).sum(axis=(1, 2))
    power = levels.light / levels.top**2 + np.square(masks / largest).sum(axis=(1, 2))
    effects = Effects(seen.photons, replace(seen.camera, adc_bits=0))
    area = step.plane[0] * step.plane[1]
    sigma = first_pass_sigma(effects, power, np.square(sums), area)
    noise = float(np.sqrt(np.mean(np.square(sigma)))) * levels.top * largest / levels.rms
    return (Term("power spectrum", noise * math.sqrt(terms)),)


def photon_rate(step: Optical, levels: Levels, top: float, chosen: Setup) -> float:
    """Photons per second at full scale on a camera pixel of a set-up."""
    arriving = photons_per_pixel(
        chosen.figures["laser_power"].value,
        1.0,
        chosen.figures["efficiency"].value,
        chosen.wavelength,
        step.plane[0] * step.plane[1],
    )
    return arriving * (levels.full / (levels.top * top)) ** 2


def on_setup(
    subject: Subject, chosen: Setup, shift: tuple[float, float]
) -> tuple[Precision, ...]:
    """Every layer on a set-up: its laser, exposure, efficiency, camera and modulators.

    Raises:
        OpticsError: The camera has no full well, or the mask's levels have no closed form.
    """
    camera = camera_of(chosen.parts["camera"])
    sigma = level_error(Modulator("double-phase", 2 ** int(chosen.parts["mask"].si("bits"))))
    source = chosen.parts["input"]
    # Binary inputs are shown as bit-planes of the eight bits that their schedule counts.
    bits = 8 if source.technology == "binary" else int(source.si("bits"))
    found = []
    for step in subject.program.optical:
        levels, top = subject.levels[step.name], top_of(subject, step)
        light = photon_rate(step, levels, top, chosen) * chosen.figures["exposure"].value
        pedestal = 4 if step.signs.detector == "intensity" else 1
        most = camera.full_well / camera.quantum_efficiency / pedestal
        seen = Sight(min(light, most), light >= most, camera, bits, sigma, shift)
        kernel = _kernel(subject, step)
        budget = layer_budget(step, subject.program.shapes, levels, top, seen, kernel)
        found.append(Precision(step.name, seen.photons, budget))
    return tuple(found)


def on_point(subject: Subject, point: Point) -> tuple[Precision, ...]:
    """Every layer on the device of a point."""
    effects = effects_of(point)
    ideal = effects.mask.kind == "ideal"
    seen = Sight(
        effects.photons,
        False,
        effects.camera,
        effects.display_bits,
        0.0 if ideal else level_error(effects.mask),
        effects.shift,
    )
    shapes = subject.program.shapes
    return tuple(
        Precision(
            step.name,
            seen.photons,
            layer_budget(
                step,
                shapes,
                subject.levels[step.name],
                top_of(subject, step),
                seen,
                _kernel(subject, step),
            ),
        )
        for step in subject.program.optical
    )


def top_of(subject: Subject, step: Optical) -> float:
    """Largest modulus of a step's transfer functions, root mean square over its masks.

    Raises:
        OpticsError: The subject is not calibrated.
    """
    return peak(step, _kernel(subject, step), subject.prepared)


def _kernel(subject: Subject, step: Optical) -> Array:
    """The stored kernel, or the computed one of the first calibration sample."""
    if step.static:
        stored: Array = subject.executor.weights[step.kernel]
        return stored
    if step.name not in subject.prepared.examples:
        raise OpticsError(f"step {step.name!r}: expected a calibrated study, found none")
    return subject.prepared.examples[step.name]
