"""Check what a caller feeds against a function's declared inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgevit.errors import InputError
from edgevit.runtimes.mil.spec import Array, Function, TensorType

__all__ = ["check_feeds"]


def check_feeds(function: Function, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The feeds in the declared dtypes, in the order of the inputs.

    An array of another dtype is taken only if the declared one represents each element.

    Raises:
        InputError: A name, shape or dtype does not fit.
    """
    names = {declared.name for declared in function.inputs}
    if names != set(feeds):
        raise InputError(
            f"expected the inputs {sorted(names)}, found {sorted(feeds)}",
            hint="name the arrays as the function's inputs",
        )
    return {d.name: _checked(d, np.asarray(feeds[d.name])) for d in function.inputs}


def _checked(declared: TensorType, array: Array) -> Array:
    if not declared.admits(array.shape):
        raise InputError(
            f"expected input {declared.name!r} of shape {list(declared.shape)}, found"
            f" {list(array.shape)}"
        )
    if array.dtype.name == declared.dtype:
        return array
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"expected input {declared.name!r} of {declared.dtype}, found {array.dtype}"
        )
    with np.errstate(all="ignore"):  # what does not fit is found by the comparison
        narrow = array.astype(declared.dtype)
        back = narrow.astype(array.dtype)
    if not np.array_equal(back, array, equal_nan=array.dtype.kind == "f"):
        raise InputError(
            f"expected input {declared.name!r} of {declared.dtype}, found {array.dtype} with"
            " elements that it does not represent",
            hint=f"round explicitly: array.astype({declared.dtype!r})",
        )
    return narrow
