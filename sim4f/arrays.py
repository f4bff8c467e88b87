"""The array namespace, and Fourier transforms over the last two axes.

Functions take the namespace as ``xp``: numpy (the default), or what array_api_compat gives for
torch or CuPy. With numpy the transforms are scipy's, which keep single precision and take a
number of workers; other namespaces use their own ``fft`` extension.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

__all__ = [
    "AXES",
    "Array",
    "Namespace",
    "Real",
    "complex_like",
    "fft2",
    "filter_real",
    "from_host",
    "ifft2",
    "irfft2",
    "rfft2",
]

Namespace = ModuleType
# An array of the namespace: numpy's, torch's or CuPy's have no common static type.
Array = Any
Real = npt.NDArray[np.float64]
AXES = (-2, -1)


def fft2(values: Array, *, xp: Namespace = np, workers: int = 1) -> Array:
    """Unnormalized DFT over the last two axes, first pixel = coordinate 0."""
    if xp is np:
        return scipy.fft.fft2(values, axes=AXES, workers=workers)
    return xp.fft.fftn(values, axes=AXES)


def ifft2(values: Array, *, xp: Namespace = np, workers: int = 1) -> Array:
    """Inverse of ``fft2``, with its factor 1 / (rows * columns)."""
    if xp is np:
        return scipy.fft.ifft2(values, axes=AXES, workers=workers)
    return xp.fft.ifftn(values, axes=AXES)


def rfft2(values: Array, *, xp: Namespace = np, workers: int = 1) -> Array:
    """Half spectrum of real ``values``: last axis N becomes N // 2 + 1."""
    if xp is np:
        return scipy.fft.rfft2(values, axes=AXES, workers=workers)
    return xp.fft.rfftn(values, axes=AXES)


def irfft2(
    spectrum: Array, shape: tuple[int, int], *, xp: Namespace = np, workers: int = 1
) -> Array:
    """Inverse of ``rfft2`` for real values of ``shape``."""
    if xp is np:
        return scipy.fft.irfft2(spectrum, s=shape, axes=AXES, workers=workers)
    return xp.fft.irfftn(spectrum, s=shape, axes=AXES)


def filter_real(planes: Array, half: Array, *, xp: Namespace = np, workers: int = 1) -> Array:
    """Real planes times a half spectrum in the frequency domain: two real-input transforms.

    With numpy every step after the first works in place: at a million pixels the time goes
    into memory, not into arithmetic.
    """
    shape = (int(planes.shape[-2]), int(planes.shape[-1]))
    if xp is not np:
        return irfft2(rfft2(planes, xp=xp) * half, shape, xp=xp)
    spectrum = scipy.fft.rfft(planes, axis=-1, workers=workers)
    spectrum = scipy.fft.fft(spectrum, axis=-2, overwrite_x=True, workers=workers)
    spectrum = _times(spectrum, half)
    spectrum = scipy.fft.ifft(spectrum, axis=-2, overwrite_x=True, workers=workers)
    return scipy.fft.irfft(spectrum, n=shape[1], axis=-1, overwrite_x=True, workers=workers)


def _times(spectrum: Array, factor: Array) -> Array:
    shape = np.broadcast_shapes(spectrum.shape, factor.shape)
    same = np.result_type(spectrum, factor) == spectrum.dtype
    if shape != spectrum.shape or not same:
        return spectrum * factor
    spectrum *= factor
    return spectrum


def complex_like(values: Array, *, xp: Namespace = np) -> Any:
    """The complex dtype of the same precision as ``values``."""
    single = values.dtype in (xp.float32, xp.complex64)
    return xp.complex64 if single else xp.complex128


def from_host(values: npt.NDArray[Any], like: Array, *, xp: Namespace = np) -> Array:
    """Move a mask built in float64 on the host beside ``like``, in its precision.

    Phases are always built on the host in float64: k z is about 1e6 rad, of which float32
    keeps no more than 0.06 rad.
    """
    single = like.dtype in (xp.float32, xp.complex64)
    if np.iscomplexobj(values):
        host = values.astype(np.complex64 if single else np.complex128, copy=False)
    else:
        host = values.astype(np.float32 if single else np.float64, copy=False)
    if xp is np:
        return host
    return xp.asarray(host, device=like.device)
