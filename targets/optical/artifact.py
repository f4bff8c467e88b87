"""The files of an optical artifact: the program, each weight once, the electronic parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgevit.bundle import npz_bytes
from edgevit.sim4f.program import Program
from edgevit.sim4f.serial import from_json, to_json

__all__ = ["PROGRAM", "Files", "program_of", "with_program", "write"]

PROGRAM, WEIGHTS, NAMES = "program.json", "weights.npz", "weights.json"
Array = np.ndarray[Any, Any]
Files = Mapping[str, bytes]


def write(
    root: str, program: Program, weights: Mapping[str, Array], parts: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Path in the bundle -> content.

    Args:
        root: Directory of the artifact.
        program: The frame program.
        weights: Name -> array; stored by number, as names may hold anything.
        parts: Electronic part name -> ONNX bytes.
    """
    names = sorted(weights)
    return {
        f"{root}/{PROGRAM}": to_json(program),
        f"{root}/{NAMES}": json.dumps(names, separators=(",", ":")).encode(),
        f"{root}/{WEIGHTS}": npz_bytes({str(i): weights[n] for i, n in enumerate(names)}),
        **{f"{root}/{name}": content for name, content in parts.items()},
    }


def program_of(files: Files, root: str) -> Program:
    """The program among an artifact's files."""
    return from_json(files[f"{root}/{PROGRAM}"])


def with_program(files: Files, root: str, program: Program) -> dict[str, bytes]:
    """The same files with another program."""
    return {**files, f"{root}/{PROGRAM}": to_json(program)}
