"""What becomes of a mask between its driver and the light: coupled pixels, gaps, turns.

A mask plane's picture of its pixels has an impulse response; what happens to the mask happens
to that response. Square pixels of width ``w`` (in pitches) multiply it by
``w^2 sinc(w y / R) sinc(w x / C)``, a transmission blurred by ``s`` pixels by
``exp(-2 (pi s)^2 ((y / R)^2 + (x / C)^2))``; a mask turned by an angle turns it by that angle;
a mask magnified by ``m`` shrinks it by ``m``. Planes are cyclic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgevit.sim4f.effects import Effects
from edgevit.sim4f.modulator import passive, realize
from edgevit.sim4f.pixels import active_width

__all__ = ["shown_mask", "weights_of"]

Array = np.ndarray[Any, Any]


def shown_mask(wanted: Array, effects: Effects, workers: int = 1) -> tuple[Array, float]:
    """The mask that light meets, without the lenses, and the factor by which it is too dim.

    Args:
        wanted: Transfer function, complex ``[R, C]``, zero frequency first.
        effects: Of the device.
        workers: Threads of the transforms.
    """
    if not wanted.any():
        return wanted, 1.0
    shown, top = wanted, 1.0
    if effects.mask.kind != "ideal":
        scaled, top = passive(wanted)
        shown = realize(effects.mask, scaled, crosstalk=effects.crosstalk)
    return (_deformed(shown, effects, workers) if effects.deformed else shown), top


def _deformed(shown: Array, effects: Effects, workers: int) -> Array:
    import scipy.fft

    from edgevit.sim4f.misalign import displaced_transfer, rotate

    rows, columns = shown.shape
    taps = scipy.fft.fftshift(scipy.fft.ifft2(shown, workers=workers))
    y, x = (np.arange(n) - n // 2 for n in (rows, columns))
    taps = taps * np.outer(*weights_of(effects, (y, x), (rows, columns)))
    if effects.rotation:
        taps = rotate(taps, effects.rotation)
    m = effects.magnification
    if m == 1:
        found = scipy.fft.fft2(scipy.fft.ifftshift(taps), workers=workers)
    else:
        origin = (-(rows // 2), -(columns // 2))
        found = displaced_transfer(taps, (rows, columns), scale=(m, m), origin=origin)
    return np.asarray(found, shown.dtype)


def weights_of(
    effects: Effects, at: tuple[Array, Array], plane: tuple[int, int]
) -> tuple[Array, Array]:
    """Factors of an impulse response at signed coordinates: pixels' width and coupling.

    Args:
        effects: Of the device.
        at: Rows and columns, each ``[n]``, from the origin.
        plane: Rows and columns of the plane.
    """
    return _weights(effects, at[0], plane[0]), _weights(effects, at[1], plane[1])


def _weights(effects: Effects, at: Array, pixels: int) -> Array:
    factor = np.ones(len(at))
    if effects.fill_factor is not None:
        width = active_width(effects.fill_factor)
        factor *= width * np.sinc(width * at / pixels)
    if effects.crosstalk and effects.mask.kind == "ideal":
        factor *= np.exp(-2 * (np.pi * effects.crosstalk * at / pixels) ** 2)
    return factor
