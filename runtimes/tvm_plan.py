"""The plan beside the TVM backend's code: read, and checked before memory is touched.

Hashes protect a sealed bundle. The engine is opened on bare files as well, and strides that
reach past a block would read and write somebody else's memory, so they are refused here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.errors import ArtifactError

__all__ = ["SCHEMA", "read_plan"]

SCHEMA = 1
_DTYPES = frozenset({"float32", "float64", "int32", "int64", "uint8", "int8", "bool"})


def read_plan(path: Path) -> dict[str, Any]:
    """The plan, every place of it inside its block.

    Raises:
        ArtifactError: It cannot be read, is of another schema, or is damaged.
    """
    try:
        plan = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise ArtifactError(f"{path}: cannot be read as a plan: {e}") from e
    found = plan.get("schema") if isinstance(plan, dict) else None
    if found != SCHEMA:
        raise ArtifactError(f"{path}: expected a plan of schema {SCHEMA}, found {found!r}")
    try:
        _check(plan)
    except (KeyError, TypeError, ValueError) as e:
        raise ArtifactError(
            f"{path}: the plan is damaged: {type(e).__name__}: {e}",
            hint="copy the bundle anew, or compile it again",
        ) from e
    return dict(plan)


def _check(plan: Mapping[str, Any]) -> None:
    sizes = {n: _count(plan[n], n) for n in ("arena", "params", "code", "steps")}
    for name in ("triple", "features"):
        texts = [plan[name]] if name == "triple" else plan[name]
        if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            raise TypeError(f"{name}: expected text, found {plan[name]!r}")
    for kind in ("inputs", "outputs", "values"):
        if not isinstance(plan[kind], list):
            raise TypeError(f"{kind}: expected a list")
        for entry in plan[kind]:
            _check_place(entry, sizes)
            if kind == "values":
                _check_steps(entry, sizes["steps"])


def _count(number: Any, what: str) -> int:
    if type(number) is not int or number < 0:
        raise TypeError(f"{what}: expected a number from 0 on, found {number!r}")
    return number


def _check_place(entry: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Whether a tensor lies inside its block, at a multiple of its elements' size."""
    name, block, dtype = entry["name"], entry["block"], entry["dtype"]
    if not isinstance(name, str) or block not in ("arena", "params") or dtype not in _DTYPES:
        raise ValueError(f"value {name!r}: block {block!r}, dtype {dtype!r}")
    reach = 1
    for axis in entry["axes"]:
        for size, stride in axis:
            if _count(size, name) < 1:
                raise ValueError(f"value {name!r}: an axis of no elements")
            reach += (size - 1) * _count(stride, name)
    width, begin = np.dtype(dtype).itemsize, _count(entry["offset"], name)
    if begin % width or begin + reach * width > sizes[block]:
        raise ValueError(
            f"value {name!r}: bytes {begin} to {begin + reach * width} of the {block}, "
            f"which has {sizes[block]}"
        )


def _check_steps(entry: Mapping[str, Any], count: int) -> None:
    for step in entry["steps"]:
        if _count(step, "steps") >= count:
            raise ValueError(f"value {entry['name']!r}: call {step} of {count}")
    if not all(isinstance(names, list) for names in entry["reads"].values()):
        raise TypeError(f"value {entry['name']!r}: reads are not lists of names")
