"""What is not ideal in a run of a frame program, and the seed of its noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgevit.sim4f.camera import Camera
from edgevit.sim4f.errors import require
from edgevit.sim4f.modulator import Modulator

__all__ = ["IDEAL", "Effects", "converted"]

Array = np.ndarray[Any, Any]
# Photons at full scale whose counts, with read noise beside them, stay finite in float32.
COUNTED = (1e-12, 1e18)


@dataclass(frozen=True)
class Effects:
    """Departures from the ideal system; ``Effects()`` has none.

    Attributes:
        photons: Photons on a camera pixel in one exposure whose signal is the step's full
            scale, without the reference wave; inf for a field known exactly.
        camera: The sensor.
        exposure: Seconds of one exposure, for the dark current.
        mask: What a pixel of the Fourier plane shows.
        display_bits: Resolution of the displayed tensor's magnitude; 0 means continuous.
        shift: Displacement of the mask along y and x, in mask pixels.
        aberration: Noll index and root mean square in rad of each Zernike term of the lenses,
            on the disc that touches the mask's edges; 4 is defocus. Wave path only.
        background: Photons of stray light on every camera pixel in one exposure, which do not
            interfere and whose mean nobody subtracts.
        speckle: Mean intensity of a coherent background that does not change, as a ratio to
            the step's full scale.
        laser_noise: Standard deviation of the light's power from exposure to exposure, as a
            ratio.
        fill_factor: Share of a mask pixel's area that transmits; the rest is opaque. ``None``
            for pixels that are points. Nobody makes up for the light that is lost.
        crosstalk: Standard deviation in mask pixels of the Gaussian by which neighbours
            couple: in what drives them, of an ideal mask in what it transmits.
        rotation: Of the mask about the optical axis in rad, from x towards y. Wave path only.
        magnification: Of the mask about the axis, also by another wavelength. Wave path only.
        pattern_seed: Of what is fixed for a device: the camera's gains and the speckle.

    Raises:
        ParameterError: A value breaks its inequality.
    """

    photons: float = np.inf
    camera: Camera = field(default_factory=Camera)
    exposure: float = 1e-3
    mask: Modulator = field(default_factory=lambda: Modulator("ideal"))
    display_bits: int = 0
    shift: tuple[float, float] = (0.0, 0.0)
    aberration: tuple[tuple[int, float], ...] = ()
    background: float = 0.0
    speckle: float = 0.0
    laser_noise: float = 0.0
    pattern_seed: int = 0
    fill_factor: float | None = None
    crosstalk: float = 0.0
    rotation: float = 0.0
    magnification: float = 1.0

    def __post_init__(self) -> None:
        require(self.photons > 0, "photons", "> 0 (no light reaches the camera)", self.photons)
        least, most = COUNTED
        within = not self.counts or least <= self.photons <= most
        bound = f"{least:g} <= photons <= {most:g}, or inf (single precision)"
        require(within, "photons", bound, self.photons)
        require(0 < self.exposure < np.inf, "exposure", "0 < exposure < inf s", self.exposure)
        bits = self.display_bits
        require(0 <= bits <= 24, "display_bits", "0 <= bits <= 24", bits)
        finite = all(np.isfinite(self.shift))
        require(finite, "shift", "finite mask pixels", self.shift)
        for index, rms in self.aberration:
            sane = bool(np.isfinite(rms))
            require(sane, f"aberration {index}", "a finite root mean square in rad", rms)
        kinds = ("ideal", "complex", "double-phase")
        require(self.mask.kind in kinds, "mask kind", f"one of {kinds}", self.mask.kind)
        self._check_light()
        self._check_mask()

    def _check_mask(self) -> None:
        fill, m = self.fill_factor, self.magnification
        require(fill is None or 0 < fill <= 1, "fill_factor", "0 < fill_factor <= 1", fill)
        bound = "0 <= crosstalk < inf mask pixels"
        require(0 <= self.crosstalk < np.inf, "crosstalk", bound, self.crosstalk)
        bound = "|rotation| <= pi / 4 rad"
        require(abs(self.rotation) <= np.pi / 4, "rotation", bound, self.rotation)
        require(0.5 <= m <= 2, "magnification", "0.5 <= magnification <= 2", m)

    def _check_light(self) -> None:
        stray, most = self.background, COUNTED[1]
        bound = f"0 <= background <= {most:g} photons"
        require(0 <= stray <= most, "background", bound, stray)
        known = not stray or self.counts
        require(known, "background", "finite photons beside it", self.photons)
        bound = "0 <= speckle < inf full scales"
        require(0 <= self.speckle < np.inf, "speckle", bound, self.speckle)
        rin = self.laser_noise
        require(0 <= rin < 0.2, "laser_noise", "0 <= laser_noise < 0.2 (a ratio)", rin)
        seed = self.pattern_seed
        require(seed >= 0, "pattern_seed", ">= 0", seed)

    @property
    def counts(self) -> bool:
        """Whether the camera counts photons; else it knows the field exactly."""
        return bool(np.isfinite(self.photons))

    @property
    def steady(self) -> bool:
        """Every pixel and every exposure has the same gain and light, none of it coherent."""
        return not (self.camera.nonuniformity or self.speckle or self.laser_noise)

    @property
    def plain(self) -> bool:
        """The camera tells the field exactly."""
        return not self.counts and self.steady

    @property
    def ideal(self) -> bool:
        """Nothing departs from the ideal."""
        return self.plain and self.exact_mask and not self.display_bits

    @property
    def exact_mask(self) -> bool:
        """The mask shows what is wanted, where it is wanted."""
        still = not any(self.shift) and not self.aberration
        return self.mask.kind == "ideal" and still and not (self.deformed or self.crosstalk)

    @property
    def dimmed(self) -> bool:
        """The mask's pixels weaken its impulse response away from the origin."""
        blurred = self.mask.kind == "ideal" and bool(self.crosstalk)
        return self.fill_factor is not None or blurred

    @property
    def turned(self) -> bool:
        """The mask is rotated or of another size."""
        return bool(self.rotation) or self.magnification != 1

    @property
    def deformed(self) -> bool:
        """The impulse response of the mask is not that of its pixels' values."""
        return self.dimmed or self.turned


IDEAL = Effects()


def converted(values: Array, bits: int) -> Array:
    """Values as a converter of ``bits`` and a sign gives them, full scale at the largest.

    Args:
        values: ``[samples, ...]``; each sample has its own full scale.
        bits: Of the magnitude; 0 leaves values as they are.
    """
    if not bits:
        return values
    top = np.abs(values).max(axis=tuple(range(1, values.ndim)), initial=0, keepdims=True)
    top = np.where(top > 0, top, 1)
    levels = 2**bits - 1
    found = np.rint(values * (levels / top)) * (top / levels)
    return np.asarray(found, values.dtype)
