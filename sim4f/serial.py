"""A frame program as JSON, and back: sorted keys, nothing that depends on time or place."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from edgevit.sim4f.errors import OpticsError
from edgevit.sim4f.moves import Move
from edgevit.sim4f.program import (
    Electronic,
    Lattice,
    Operand,
    Optical,
    Program,
    Read,
    Tensor,
)
from edgevit.sim4f.signs import Exposure, Signs

__all__ = ["SCHEMA", "from_json", "to_json"]

SCHEMA = 2


def to_json(program: Program) -> bytes:
    """Canonical bytes of a program."""
    data = {
        "schema": SCHEMA,
        "steps": [_step(step) for step in program.steps],
        "inputs": [dataclasses.asdict(t) for t in program.inputs],
        "outputs": [dataclasses.asdict(t) for t in program.outputs],
        "shapes": {name: list(shape) for name, shape in program.shapes.items()},
    }
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def _step(step: Optical | Electronic) -> dict[str, Any]:
    kind = "optical" if isinstance(step, Optical) else "electronic"
    return {"kind": kind, **dataclasses.asdict(step)}


def from_json(data: bytes) -> Program:
    """The program of ``to_json``'s bytes.

    Raises:
        OpticsError: Not such a file, or of another schema.
    """
    try:
        found = json.loads(data)
        if found["schema"] != SCHEMA:
            raise OpticsError(
                f"frame program: expected schema {SCHEMA}, found {found['schema']!r}"
            )
        return Program(
            steps=tuple(_read_step(dict(step)) for step in found["steps"]),
            inputs=tuple(_tensor(t) for t in found["inputs"]),
            outputs=tuple(_tensor(t) for t in found["outputs"]),
            shapes={name: tuple(shape) for name, shape in found["shapes"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        if isinstance(e, OpticsError):
            raise
        raise OpticsError(f"frame program: cannot be read: {type(e).__name__} {e}") from e


def _tensor(data: Mapping[str, Any]) -> Tensor:
    return Tensor(data["name"], tuple(data["shape"]), data["dtype"])


def _read_step(data: dict[str, Any]) -> Optical | Electronic:
    if data.pop("kind") == "electronic":
        pairs = {key: tuple((a, b) for a, b in data[key]) for key in ("inputs", "outputs")}
        return Electronic(data["name"], pairs["inputs"], pairs["outputs"])
    return Optical(
        **{
            **data,
            "plane": (int(data["plane"][0]), int(data["plane"][1])),
            "joint": (int(data["joint"][0]), int(data["joint"][1])),
            "displayed": _operand(data["displayed"]),
            "masked": _operand(data["masked"]),
            "read": _read(data["read"]),
            "signs": _signs(data["signs"]),
        }
    )


def _moves(data: list[Mapping[str, Any]]) -> tuple[Move, ...]:
    return tuple(Move(m["kind"], tuple(int(n) for n in m["numbers"])) for m in data)


def _lattice(data: Mapping[str, Any]) -> Lattice:
    return Lattice(int(data["origin"]), tuple((int(n), int(s)) for n, s in data["axes"]))


def _operand(data: Mapping[str, Any]) -> Operand:
    rows, columns = _lattice(data["rows"]), _lattice(data["columns"])
    return Operand(_moves(data["moves"]), data["labels"], rows, columns)


def _read(data: Mapping[str, Any]) -> Read:
    rows, columns = _lattice(data["rows"]), _lattice(data["columns"])
    return Read(data["labels"], rows, columns, _moves(data["moves"]))


def _signs(data: Mapping[str, Any]) -> Signs:
    exposures = tuple(Exposure(**e) for e in data["exposures"])
    return Signs(data["name"], data["detector"], exposures, float(data["gain"]))
