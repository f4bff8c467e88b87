"""The plan beside the code: where tensors are, and which calls make which value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgevit.bundle import Binding
from edgevit.targets.tvm.machine import Machine
from edgevit.targets.tvm.program import Program, Tensor
from edgevit.targets.tvm.strides import Held

__all__ = ["SCHEMA", "Placed", "document", "makers"]

SCHEMA = 1


@dataclass(frozen=True)
class Placed:
    """A source value with its place.

    Attributes:
        binding: Name, shape and dtype.
        held: Tensor and strides.
    """

    binding: Binding
    held: Held


def _place(held: Held, offsets: Mapping[Tensor, int]) -> dict[str, Any]:
    tensor = held.tensor
    width = tensor.nbytes // max(1, tensor.size)
    return {
        "block": tensor.space,
        "offset": offsets[tensor] + held.offset * width,
        "dtype": tensor.dtype,
        "axes": [[list(f) for f in axis] for axis in held.view.axes],
    }


def makers(program: Program) -> dict[Tensor, list[int]]:
    """For each tensor the steps that write it, in order."""
    found: dict[Tensor, list[int]] = {}
    for i, step in enumerate(program.steps):
        for tensor in step.touched(written=True):
            found.setdefault(tensor, []).append(i)
    return found


def _closure(
    program: Program, wrote: Mapping[Tensor, Sequence[int]], target: Tensor, known: set[Tensor]
) -> list[int]:
    """The steps that compute a tensor from tensors that are known, in order."""
    needed: set[int] = set()
    pending = [target]
    seen = {target}
    while pending:
        for i in wrote.get(pending.pop(), ()):
            needed.add(i)
            for tensor in program.steps[i].touched(written=False):
                if tensor.space == "arena" and tensor not in known and tensor not in seen:
                    seen.add(tensor)
                    pending.append(tensor)
    return sorted(needed)


def document(
    program: Program,
    machine: Machine,
    inputs: Sequence[Placed],
    outputs: Sequence[Placed],
    values: Sequence[Placed],
    offsets: Mapping[Tensor, int],
    sizes: tuple[int, int, int],
    more: Mapping[str, Any],
) -> bytes:
    """The plan as canonical JSON.

    Args:
        program: The calls.
        machine: What they run on.
        inputs: Of the network.
        outputs: Of the network.
        values: Those that have a place.
        offsets: Of each tensor in its block, bytes.
        sizes: Bytes of arena, parameters and code.
        more: What is said besides.
    """
    wrote = makers(program)
    fed = {p.held.tensor: p.binding.artifact for p in inputs}
    listed = []
    known = dict(fed)
    for placed in values:
        steps = _closure(program, wrote, placed.held.tensor, set(known) - {placed.held.tensor})
        reads: dict[str, list[str]] = {}
        for i in steps:
            names = [
                known[t]
                for t in program.steps[i].touched(written=False)
                if t in known and t is not placed.held.tensor
            ]
            if names:
                reads[str(i)] = sorted(set(names))
        listed.append(
            {
                "name": placed.binding.artifact,
                **_place(placed.held, offsets),
                "steps": steps,
                "reads": reads,
            }
        )
        known.setdefault(placed.held.tensor, placed.binding.artifact)
    content = {
        "schema": SCHEMA,
        "triple": machine.triple,
        "features": list(machine.features),
        "arena": sizes[0],
        "params": sizes[1],
        "code": sizes[2],
        "steps": len(program.steps),
        "kernels": [s.kernel.label for s in program.steps],
        "inputs": [{"name": p.binding.artifact, **_place(p.held, offsets)} for p in inputs],
        "outputs": [{"name": p.binding.artifact, **_place(p.held, offsets)} for p in outputs],
        "values": listed,
        **more,
    }
    return (json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n").encode()
