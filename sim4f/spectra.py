"""Transforms of real planes that are mostly dark, and of which few pixels are read."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["half_spectrum", "read_half"]

Array = np.ndarray[Any, Any]


def half_spectrum(plane: Array, workers: int = 1) -> Array:
    """Half spectrum of a real plane, ``[R // 2 + 1, C]``; dark columns are not transformed."""
    import scipy.fft

    lit = np.flatnonzero(plane.any(axis=0))
    down = np.zeros((plane.shape[0] // 2 + 1, plane.shape[1]), _complex(plane))
    if lit.size:
        down[:, lit] = scipy.fft.rfft(plane[:, lit], axis=0, workers=workers)
    return np.asarray(scipy.fft.fft(down, axis=1, workers=workers, overwrite_x=True))


def read_half(
    spectrum: Array, plane: tuple[int, int], rows: Array, columns: Array, workers: int = 1
) -> Array:
    """The field at ``rows`` and ``columns`` of the plane with this half spectrum."""
    import scipy.fft

    across = scipy.fft.ifft(spectrum, axis=1, workers=workers, overwrite_x=True)
    distinct, back = np.unique(columns, return_inverse=True)
    lines = scipy.fft.irfft(across[:, distinct], n=plane[0], axis=0, workers=workers)
    return np.asarray(lines[rows][:, back.reshape(-1)])


def _complex(plane: Array) -> Any:
    return np.complex64 if plane.dtype == np.float32 else np.complex128
