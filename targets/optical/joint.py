"""Mapping ``joint-transform``: both operands of a dynamic product in the input plane.

Keys or values need no mask and no Fourier transform in electronics; the price is a first
exposure for the power spectrum, and room. With tensor rows ``a`` in ``[0, T)``, kernel rows
``q`` and read rows ``r``, the kernel stands at ``separation - q`` and the product at lag
``r - separation``. That lag holds nothing else if

1. it is longer than both operands: ``separation - max r > max(max a - min a, max q - min q)``,
2. on the torus the mirrored product does not reach it:
   ``R + min r - separation > separation - min a - min q``.
"""

from __future__ import annotations

from dataclasses import replace

from edgevit.sim4f.program import Lattice, Optical
from edgevit.sim4f.signs import Signs
from edgevit.targets.optical.layer import Layer
from edgevit.targets.optical.tiles import Tiling, channel_tile, too_large

__all__ = ["JOINT", "joint_transform", "separation"]

JOINT = "joint-transform"


def _ends(lattice: Lattice) -> tuple[int, int]:
    at = lattice.coordinates()
    return int(at.min()), int(at.max())


def separation(step: Optical, name: str) -> tuple[int, int]:
    """Least separation in pixels along y and x that isolates the product.

    Raises:
        UnsupportedModelError: The plane has no room for it.
    """
    (a0, a1), (q0, q1) = _ends(step.displayed.rows), _ends(step.masked.rows)
    r0, r1 = _ends(step.read.rows)
    apart = r1 + max(a1 - a0, q1 - q0) + 1
    need = 2 * apart - a0 - q0 - r0 + 1
    if need > step.plane[0] or apart - q0 >= step.plane[0]:
        raise too_large(name, "rows of a joint transform", need, step.plane[0])
    # Along x nothing has to be kept apart: the kernel is moved into the plane.
    return apart, _ends(step.masked.columns)[1]


def joint_transform(
    layer: Layer, plane: tuple[int, int], tiling: Tiling, signs: Signs
) -> Optical:
    """The frames of a layer, its kernel displayed beside its tensor.

    Raises:
        UnsupportedModelError: The plane has no room for both.
    """
    step = channel_tile(layer, plane, tiling, signs, JOINT)
    return replace(step, joint=separation(step, layer.name))


def fewer_groups(tiling: Tiling, layer: Layer, plane: tuple[int, int]) -> Tiling | None:
    """The tiling with as many rows of groups as leave room for the separation."""
    down, right = tiling.groups
    reach = (layer.rows.kernel - 1) * layer.rows.dilation
    for rows in range(down, 0, -1):
        height = rows * tiling.across[0] * layer.rows.pitch
        # Read rows, the longer operand, and the mirrored product beside them.
        if 2 * (2 * height + reach) <= plane[0]:
            return replace(tiling, groups=(rows, right))
    return None
