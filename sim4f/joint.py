"""The joint transform correlator: a computed kernel is displayed, not written into a mask.

Tensor and kernel stand side by side in the input plane; a camera in the Fourier plane records
their power spectrum, which is displayed in turn and transformed again (Weaver and Goodman,
Appl. Opt. 5, 1966). The second output plane holds the autocorrelation of the whole input plane

    A[d] = sum over p of u[p + d] u[p],

of which the product is one of four terms: with kernel element ``q`` at pixel
``separation - q`` it stands at ``d = r - separation``. No electronic Fourier transform of the
kernel is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgevit.sim4f.effects import Effects
from edgevit.sim4f.errors import ParameterError, require
from edgevit.sim4f.perturb import centered_at
from edgevit.sim4f.place import input_plane
from edgevit.sim4f.program import Lattice, Optical

__all__ = ["autocorrelated", "first_pass_sigma", "joint_plane", "lag_pixels", "require_simple"]
__all__ += ["strays", "weakened"]

Array = np.ndarray[Any, Any]
# The brightest pixel that a power spectrum could have, over a signal's full scale: the camera
# spans four times the photons of the full scale in every exposure, pedestal or not.
SPAN = 4.0


def kernel_pixels(step: Optical) -> tuple[Array, Array]:
    """Rows and columns of the input plane at which the kernel's elements stand.

    Raises:
        ParameterError: They leave the plane.
    """
    found = []
    for name, lattice, apart, pixels in zip(
        ("rows", "columns"),
        (step.masked.rows, step.masked.columns),
        step.joint,
        step.plane,
        strict=True,
    ):
        at = apart - lattice.coordinates()
        inside = bool(at.min() >= 0 and at.max() < pixels)
        said = f"{at.min()} to {at.max()}"
        require(inside, f"joint kernel {name}", f"0 <= coordinate < {pixels}", said)
        found.append(at)
    return found[0], found[1]


def joint_plane(step: Optical, shown: Array, taps: Array) -> Array:
    """The input plane of one frame with both operands; pixels that both use add up."""
    plane = input_plane(step, shown)
    np.add.at(plane, np.ix_(*kernel_pixels(step)), taps)
    return plane


def lag_pixels(step: Optical) -> tuple[Array, Array]:
    """Rows and columns of the output plane that are read, zero lag first, wrapped."""
    lags = (
        lattice.coordinates() - apart
        for lattice, apart in zip((step.read.rows, step.read.columns), step.joint, strict=True)
    )
    rows, columns = (lag % pixels for lag, pixels in zip(lags, step.plane, strict=True))
    return rows, columns


def strays(step: Optical) -> bool:
    """Whether a pixel that is read holds anything else than the product.

    The other terms are the autocorrelations of both operands, and the mirrored product.
    """
    shown = (step.displayed.rows, step.displayed.columns)
    masked = kernel_pixels(step)
    lags = lag_pixels(step)
    for first, second in (("x", "x"), ("k", "k"), ("k", "x")):
        met = [
            _meets(
                _at(first, shown[i], masked[i]), _at(second, shown[i], masked[i]), lags[i], n
            )
            for i, n in enumerate(step.plane)
        ]
        if all(met):
            return True
    # Operands on one pixel are one operand.
    overlap = [
        np.intersect1d(lattice.coordinates(), at).size > 0
        for lattice, at in zip(shown, masked, strict=True)
    ]
    return all(overlap)


def _at(which: str, shown: Lattice, masked: Array) -> Array:
    return shown.coordinates() if which == "x" else masked


def _meets(first: Array, second: Array, lags: Array, pixels: int) -> bool:
    """Whether some pair of pixels is as far apart as a lag that is read."""
    apart = np.zeros(pixels, bool)
    apart[(first[:, None] - second[None, :]).reshape(-1) % pixels] = True
    return bool(apart[lags].any())


def autocorrelated(step: Optical, plane: Array) -> Array:
    """The autocorrelation at the pixels that are read, term by term (slow)."""
    rows, columns = lag_pixels(step)
    down, across = np.nonzero(plane)
    values = plane[down, across].astype(np.float64)
    found = np.empty((len(rows), len(columns)))
    for i, j in np.ndindex(found.shape):
        other = plane[(down + rows[i]) % step.plane[0], (across + columns[j]) % step.plane[1]]
        found[i, j] = (other * values).sum()
    return found


def weakened(step: Optical, shift: tuple[float, float]) -> Array:
    """Phase factor at the read pixels of a power spectrum displayed ``shift`` pixels off."""
    turns = [
        e * centered_at(lag, n) / n
        for e, lag, n in zip(shift, lag_pixels(step), step.plane, strict=True)
    ]
    return np.asarray(np.exp(2j * np.pi * (turns[0][:, None] + turns[1][None, :])))


def first_pass_sigma(effects: Effects, power: Array, brightest: Array, pixels: int) -> Array:
    """Deviation at a pixel of the second output plane from counting the power spectrum.

    The exposure is such that the brightest possible pixel, ``(sum |u|)^2``, collects ``SPAN``
    times the photons of a full scale. A count's variance is its mean plus the read noise's;
    with Parseval ``sum P = R C sum u^2``, and the real part of a transform holds half of it.

    Args:
        effects: Photons and camera.
        power: ``sum u^2`` of each frame.
        brightest: ``(sum |u|)^2`` of each frame.
        pixels: ``R C``.
    """
    camera = effects.camera
    per_unit = SPAN * effects.photons * camera.quantum_efficiency / brightest
    variance = power / per_unit + (camera.read_noise / per_unit) ** 2
    return np.asarray(np.sqrt(variance / (2 * pixels)))


def require_simple(step: Optical, effects: Effects) -> None:
    """Refuse effects that are not modeled for power spectra.

    Raises:
        ParameterError: Levels, pixels or a turn of the second modulator, lenses that are not
            ideal, or speckle.
    """
    pixels = effects.deformed or effects.crosstalk
    if effects.mask.kind != "ideal" or effects.aberration or effects.speckle or pixels:
        raise ParameterError(
            f"step {step.name!r}: mask levels, fill factor, crosstalk, rotation, "
            f"magnification, aberrations and speckle are not modeled for joint transforms; "
            f"compile with attention=mask"
        )
