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

from edgevit.bundle import Part
from edgevit.errors import ArtifactError

__all__ = ["SCHEMA", "check_launches", "check_names", "check_size", "read_plan"]

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


def check_names(artifact: Path, plan: Mapping[str, Any], part: Part) -> None:
    """Whether the plan speaks of the tensors that the manifest gives and takes."""
    if not (part.inputs or part.outputs):
        return  # opened without a manifest
    if "drive" in plan:
        return  # of a verification: made here, with values between
    for kind, bindings in (("inputs", part.inputs), ("outputs", part.outputs)):
        found = sorted(e["name"] for e in plan[kind])
        expected = sorted(b.artifact for b in bindings)
        if found != expected:
            raise ArtifactError(
                f"{artifact}: expected {kind} {expected}, the plan has {found}"
            )


def check_size(path: Path, size: int) -> None:
    """Whether a file has the size that its plan says.

    Raises:
        ArtifactError: It has not, or is not there.
    """
    try:
        found = path.stat().st_size
    except OSError as e:
        raise ArtifactError(f"{path}: cannot be read: {e.strerror}") from e
    if found != size:
        raise ArtifactError(f"{path}: expected {size} bytes, found {found}")


def check_launches(plan: Mapping[str, Any], path: Path) -> None:
    """Whether every step has a launch whose pointers are inside the blocks.

    Raises:
        ArtifactError: It has not.
    """
    try:
        if len(plan["launches"]) != plan["steps"]:
            raise ValueError(f"{len(plan['launches'])} launches of {plan['steps']} steps")
        for one in plan["launches"]:
            _check_launch(one, plan)
    except (KeyError, TypeError, ValueError) as e:
        raise ArtifactError(f"{path}: the launches are damaged: {e}") from e


def _check_launch(one: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    name = one["kernel"]
    if not isinstance(name, str):
        raise TypeError(f"kernel {name!r}: expected text")
    for what, most in (("blocks", (1 << 31) - 1), ("threads", 1024)):
        if not 1 <= _count(one[what], name) <= most:
            raise ValueError(f"{name}: {one[what]} {what}")
    for block, offset in one["pointers"]:
        if block not in ("arena", "params") or _count(offset, name) >= plan[block]:
            raise ValueError(f"{name}: byte {offset} of the {block}")
