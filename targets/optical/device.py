"""The device of a study: numbers that can be asked for, and what they stand for."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields

from edgevit.errors import UsageError
from edgevit.sim4f.camera import Camera
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.errors import OpticsError, require
from edgevit.sim4f.modulator import Modulator

__all__ = ["PEDESTAL", "Point", "effects_of"]

# The reference of a homodyne exposure doubles the field: four times the signal's photons.
PEDESTAL = 4.0
# Beyond float32's mantissa levels cannot be told from a continuous phase.
MOST_BITS = 24
# Fields that are in every point's key; results of earlier sweeps go by them.
_FIRST = ("photons", "adc_bits", "read_noise", "mask_bits", "display_bits", "shift", "defocus")


@dataclass(frozen=True)
class Point:
    """A device in a sweep; the defaults are ideal.

    Attributes:
        photons: On a camera pixel at the step's full scale, reference apart; ``None``:
            the field is known exactly.
        adc_bits: Of the camera, over four times those photons; 0: analog.
        read_noise: Electrons.
        mask_bits: Phase levels of a double-phase mask; 0: ideal.
        display_bits: Of the displayed tensor's magnitude; 0: continuous.
        shift: Displacement of the mask along both axes, in mask pixels.
        defocus: Root mean square in rad over the mask's disc; wave path only.
        full_well: Electrons at which a camera pixel saturates; 0: as many as the light needs.
        background: Photons of stray light on a camera pixel in one exposure.
        speckle: Mean intensity of a static coherent background, as a ratio to full scale.
        laser_noise: Standard deviation of the power over exposures, as a ratio.
        nonuniformity: Standard deviation of the camera's gains, as a ratio.
        fill_factor: Active share of a mask pixel; ``None``: pixels are points.
        crosstalk: Standard deviation of the mask pixels' coupling, in pixels.
        rotation: Of the mask in rad; wave path only.
        magnification: Of the mask; wave path only.
    """

    photons: float | None = None
    adc_bits: int = 0
    read_noise: float = 0.0
    mask_bits: int = 0
    display_bits: int = 0
    shift: float = 0.0
    defocus: float = 0.0
    full_well: float = 0.0
    background: float = 0.0
    speckle: float = 0.0
    laser_noise: float = 0.0
    nonuniformity: float = 0.0
    fill_factor: float | None = None
    crosstalk: float = 0.0
    rotation: float = 0.0
    magnification: float = 1.0

    @property
    def key(self) -> str:
        """Canonical text; of what was added after the first seven fields, what is given."""
        given = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}
        kept = {k: v for k, (v, usual) in given.items() if k in _FIRST or v != usual}
        return json.dumps(kept, sort_keys=True, separators=(",", ":"))

    def seed(self, seed: int, first: int) -> int:
        """Of the noise of the samples from ``first`` on."""
        text = f"{self.key}:{seed}:{first}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def effects_of(point: Point) -> Effects:
    """The device of a point.

    Raises:
        UsageError: An impossible number; the message names the inequality.
    """
    try:
        light = point.photons
        if light is None and (point.adc_bits or point.read_noise):
            raise UsageError(
                "adc_bits and read_noise: expected photons > 0 beside them, found none",
                hint="a converter's step is a share of the light: give photons too",
            )
        require(light is None or light > 0, "photons", "> 0", light)
        bits = point.mask_bits
        require(0 <= bits <= MOST_BITS, "mask_bits", f"0 <= bits <= {MOST_BITS}", bits)
        camera = Camera(
            full_well=_full_well(point),
            read_noise=point.read_noise,
            adc_bits=point.adc_bits,
            nonuniformity=point.nonuniformity,
        )
        mask = Modulator("double-phase", 2**point.mask_bits) if point.mask_bits else None
        return Effects(
            photons=math.inf if light is None else light,
            camera=camera,
            mask=mask or Modulator("ideal"),
            display_bits=point.display_bits,
            shift=(point.shift, point.shift),
            aberration=((4, point.defocus),) if point.defocus else (),
            background=point.background,
            speckle=point.speckle,
            laser_noise=point.laser_noise,
            fill_factor=point.fill_factor,
            crosstalk=point.crosstalk,
            rotation=point.rotation,
            magnification=point.magnification,
        )
    except OpticsError as e:
        raise UsageError(str(e)) from e


def _full_well(point: Point) -> float:
    """What the converter spans.

    Raises:
        ParameterError: The brightest pixel would saturate the camera.
    """
    stray = point.background
    brightest = PEDESTAL * (point.photons or 0.0) + stray
    if point.full_well:
        most = "4 x photons + background" if stray else "4 x photons"
        bound = f"{most} <= full_well (a saturated camera counts no further)"
        fits = 0 < brightest <= point.full_well
        require(fits, "full_well", bound, f"{brightest:g} <= {point.full_well:g}")
        return point.full_well
    return brightest if point.adc_bits and brightest else math.inf
