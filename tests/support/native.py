"""Compiles TVM kernels and runs them on arrays; lowers whole graphs and runs the files."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.backend import Lowered, LowerOptions
from edgevit.target import load_target
from edgevit.targets.tvm.lower import TVMBackend
from edgevit.targets.tvm.machine import Machine

__all__ = ["Result", "kernels", "lower", "run_all"]

Array = np.ndarray[Any, Any]
_WORKER = Path(__file__).with_name("native_worker.py")
TARGET = "linux-x86:backend=tvm"


@dataclass(frozen=True)
class Result:
    """What a run gave: outputs by source name, or the error's text."""

    outputs: Mapping[str, Array]
    error: str


def kernels(machine: Machine, jobs: Sequence[tuple[Any, Sequence[Array]]]) -> None:
    """Call each kernel on flat arrays, in order; written operands are changed in place."""
    import tvm
    from tvm.ir import Call, GlobalVar
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as T

    from edgevit.targets.tvm.kernels.kernel import function

    functions: dict[Any, Any] = {}
    for i, (kernel, arrays) in enumerate(jobs):
        name = GlobalVar(f"k{i}")
        functions[name] = function(kernel, machine, name.name_hint)
        with IRBuilder() as builder, T.prim_func():
            T.func_name(f"run{i}")
            buffers = [
                T.match_buffer(T.arg(f"a{j}", T.handle()), (a.size,), a.dtype.name)
                for j, a in enumerate(arrays)
            ]
            pointers = [T.address_of(b[0]) for b in buffers]
            T.evaluate(Call(name, pointers, ret_ty="int32"))
        functions[GlobalVar(f"run{i}")] = builder.get().with_attr("global_symbol", f"run{i}")
    built = tvm.compile(tvm.IRModule(functions), target=machine.target())
    for i, (kernel, arrays) in enumerate(jobs):
        for operand, array in zip(kernel.operands, arrays, strict=True):
            assert operand.size <= array.size
            assert operand.dtype == array.dtype.name
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays]
        built[f"run{i}"](*tensors)
        for operand, array, tensor in zip(kernel.operands, arrays, tensors, strict=True):
            if operand.written:
                array[...] = tensor.numpy()


def lower(model: ir.Model, precision: str = "fp32", target: str = TARGET) -> Lowered:
    """Lower for this machine."""
    chosen, backend = load_target(target), TVMBackend()
    for node in model.graph:
        reason = backend.unsupported(node, chosen, precision)
        assert reason is None, f"{node.op_type}: {reason}"
    return backend.lower(model, chosen, LowerOptions(precision, "source", "m"))


def run_all(jobs: Sequence[tuple[Lowered, Mapping[str, Array]]]) -> list[Result]:
    """Run artifacts on source inputs, all in one child process.

    Raises:
        RuntimeError: The child died; the message names the job.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "jobs"), Path(folder, "results")
        before.write_bytes(pickle.dumps([(j.files, j.part, dict(f)) for j, f in jobs]))
        command = [sys.executable, str(_WORKER), str(before), str(after)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = pickle.loads(after.read_bytes()) if after.is_file() else []
    if done.returncode or len(found) < len(jobs):
        raise RuntimeError(f"job {len(found)} took the process down: {done.stderr[-500:]}")
    return [Result(outputs, error) for outputs, error in found]
