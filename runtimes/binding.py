"""Carry a tensor from the source model's form to the artifact's, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgevit.bundle import Binding
from edgevit.errors import ArtifactError, InputError

__all__ = ["check_fits", "from_artifact", "to_artifact"]

Array = np.ndarray[Any, Any]


def to_artifact(binding: Binding, array: Array) -> Array:
    """``array.transpose(perm).reshape(artifact_shape).astype(artifact_dtype)``, contiguous.

    Args:
        binding: How the artifact holds the tensor.
        array: The tensor in the source model's shape and dtype.

    Raises:
        InputError: A value does not fit the artifact's dtype, e.g. an int64 above 2^31 - 1.
    """
    turned = array if binding.perm is None else array.transpose(binding.perm)
    dtype = np.dtype(binding.artifact_dtype)
    if array.dtype != dtype:
        check_fits(binding, array, dtype)
    with np.errstate(over="ignore"):  # checked above
        converted = turned.reshape(binding.artifact_shape).astype(dtype, copy=False)
    return np.ascontiguousarray(converted).reshape(binding.artifact_shape)


def check_fits(binding: Binding, array: Array, dtype: np.dtype[Any]) -> None:
    """Whether all finite numbers of ``array`` are within the range of ``dtype``.

    Raises:
        InputError: One is not.
        ArtifactError: Floats are to become integers.
    """
    if dtype.kind in "iu" and array.dtype.kind == "f":
        raise ArtifactError(
            f"tensor {binding.name!r}: the artifact takes {dtype}, the source gives "
            f"{array.dtype}, and the bundle records no scale"
        )
    if dtype.kind not in "iuf" or array.size == 0 or array.dtype.kind == "b":
        return
    low, high = _limits(dtype)
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    if finite.size == 0:
        return
    least, most = finite.min(), finite.max()
    if least < low or most > high:
        found = least if least < low else most
        raise InputError(
            f"input {binding.name!r}: the value {found} does not fit {dtype}, which the "
            f"artifact uses: expected {low} to {high}",
            hint="scale the input down, or compile with a precision of wider numbers",
        )


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if dtype.kind == "f":
        info = np.finfo(dtype)
        return float(info.min), float(info.max)
    whole = np.iinfo(dtype)
    return int(whole.min), int(whole.max)


def from_artifact(binding: Binding, array: Array) -> Array:
    """The inverse of ``to_artifact``: the source model's shape and dtype.

    No copy is made where none is needed: the engine's array is the caller's own.

    Raises:
        ArtifactError: The engine's array has not the shape that the bundle records.
    """
    shape = binding.artifact_shape
    if array.shape != shape:
        raise ArtifactError(
            f"output {binding.name!r}: expected the artifact's shape {shape}, found "
            f"{array.shape} from the engine"
        )
    if binding.perm is not None:
        turned = tuple(binding.shape[axis] for axis in binding.perm)
        array = array.reshape(turned).transpose(np.argsort(binding.perm))
    with np.errstate(over="ignore", invalid="ignore"):  # non-finite values stay visible
        converted = _shaped(array, binding.shape).astype(binding.dtype, copy=False)
    return _shaped(np.ascontiguousarray(converted), binding.shape)


def _shaped(array: Array, shape: tuple[int, ...]) -> Array:
    """The array itself where it has the shape: a view of it would not own its memory."""
    return array if array.shape == shape else array.reshape(shape)
