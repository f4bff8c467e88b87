"""Kernels for another processor, run under emulation: one program, one call of each kernel."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arm64.root import CPU, EMULATOR, PYTHON, SYSTEM, prepare_native, prepare_root
from edgevit.targets.tvm.codegen import shared_object
from edgevit.targets.tvm.kernels.kernel import Kernel
from edgevit.targets.tvm.machine import Machine
from edgevit.targets.tvm.program import Program, Ref, Tensor

__all__ = ["run_emulated"]

Array = np.ndarray[Any, Any]
_WORKER = Path(__file__).with_name("tvm_emulated_worker.py")


def run_emulated(
    jobs: Sequence[tuple[Kernel, Sequence[Array]]], machine: Machine
) -> list[Array]:
    """What each kernel writes last, flat; operands that are read are given in order.

    Raises:
        RuntimeError: The emulated process fails.
    """
    program, results = Program(), []
    for i, (kernel, arrays) in enumerate(jobs):
        given, refs = iter(arrays), []
        for operand in kernel.operands:
            if operand.written:
                made = Tensor(f"{i}", operand.dtype, operand.size, "arena", kept=True)
                refs.append(Ref(made))
            else:
                one = np.ascontiguousarray(next(given)).ravel()
                refs.append(Ref(program.constant(f"{i}/{operand.name}", one)))
        program.call(kernel, *refs)
        results.append(refs[-1].tensor)
    arena, offsets = program.arena(results)
    params, places = program.parameters()
    code = shared_object(program, machine, {**offsets, **places}, (arena, len(params)))
    after = _run(code, b"\x55" * arena, params, len(jobs))
    return [np.frombuffer(after, t.dtype, t.size, offsets[t]) for t in results]


def _run(code: bytes, arena: bytes, params: bytes, steps: int) -> bytes:
    """The arena after all steps."""
    root = prepare_root()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kernels.so").write_bytes(code)
        (folder / "arena").write_bytes(arena)
        (folder / "params").write_bytes(params)
        (folder / "steps.json").write_text(json.dumps(steps))
        system = root / SYSTEM
        site = os.pathsep.join(map(str, (root / "site", prepare_native())))
        command = [EMULATOR, "-cpu", CPU, "-L", str(system), str(system / PYTHON)]
        done = subprocess.run(
            [*command, str(_WORKER), name],
            env={"PYTHONPATH": site, "TVM_NUM_THREADS": "1", "PATH": os.defpath},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-800:])
        return (folder / "after").read_bytes()
