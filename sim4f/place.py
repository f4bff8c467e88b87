"""Operands on planes: the input plane and the impulse response of a frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgevit.sim4f.matching import occupancy
from edgevit.sim4f.program import Optical

__all__ = ["impulse_response", "input_plane", "read_pixels"]

Array = np.ndarray[Any, Any]


def input_plane(step: Optical, shown: Array) -> Array:
    """The displayed plane of one frame.

    Args:
        step: The step.
        shown: ``[rows, columns]`` elements of the operand's lattice.

    Returns:
        ``[R, C]`` of the same dtype; pixels without an element are dark.

    Raises:
        ParameterError: Elements leave the plane or share a pixel.
    """
    rows, columns = step.displayed.rows, step.displayed.columns
    for lattice, pixels in ((rows, step.plane[0]), (columns, step.plane[1])):
        occupancy(lattice, pixels)
    plane = np.zeros(step.plane, shown.dtype)
    plane[np.ix_(rows.coordinates(), columns.coordinates())] = shown
    return plane


def impulse_response(step: Optical, taps: Array) -> Array:
    """The impulse response of one frame's mask; elements on one pixel add up.

    Args:
        step: The step.
        taps: ``[rows, columns]`` elements of the kernel's lattice.

    Returns:
        ``[R, C]`` of the same dtype, the origin at pixel 0, negative coordinates wrapped.
    """
    rows = step.masked.rows.coordinates() % step.plane[0]
    columns = step.masked.columns.coordinates() % step.plane[1]
    plane = np.zeros(step.plane, taps.dtype)
    if len(np.unique(rows)) == len(rows) and len(np.unique(columns)) == len(columns):
        plane[np.ix_(rows, columns)] = taps
    else:
        np.add.at(plane, np.ix_(rows, columns), taps)
    return plane


def read_pixels(step: Optical) -> tuple[Array, Array]:
    """Rows and columns that the camera reads, wrapped onto the plane."""
    rows = step.read.rows.coordinates() % step.plane[0]
    return rows, step.read.columns.coordinates() % step.plane[1]
