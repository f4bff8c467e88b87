"""Compile one kernel of the TVM backend by itself and call it on numpy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import ir
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.kernels.kernel import Kernel, function
from edgevit.targets.tvm.machine import MACHINES, Machine

Array = np.ndarray[Any, Any]


def runs_here(machine: Machine) -> bool:
    """Whether this processor has all that the machine's code uses."""
    with open("/proc/cpuinfo") as file:
        flags = next((line for line in file if line.startswith("flags")), "").split()
    return machine.architecture == "x86_64" and set(machine.features) <= set(flags)


def here() -> Machine:
    """The best machine that runs here."""
    usable = [m for m in MACHINES.values() if runs_here(m)]
    return max(usable, key=lambda m: (m.lanes, bool(m.dot)))


def module(kernel: Kernel, machine: Machine) -> Any:
    """The kernel and an exported function ``run`` that calls it."""
    name = ir.GlobalVar("kernel")
    with IRBuilder() as builder, T.prim_func():
        T.func_name("run")
        handles = [T.arg(f"p{i}", T.handle()) for i in range(len(kernel.operands))]
        buffers = [
            T.match_buffer(h, (o.size,), o.dtype)
            for h, o in zip(handles, kernel.operands, strict=True)
        ]
        pointers = [T.address_of(b[0]) for b in buffers]
        T.evaluate(ir.Call(name, pointers, ret_ty="int32"))
    run = builder.get().with_attr("global_symbol", "run")
    functions = {name: function(kernel, machine, "kernel"), ir.GlobalVar("run"): run}
    return tvm.IRModule(functions)


def build(kernel: Kernel, machine: Machine) -> Any:
    """The compiled module."""
    return tvm.compile(module(kernel, machine), target=machine.target())


def caller(kernel: Kernel, machine: Machine) -> Callable[..., Array]:
    """A function from the operands that are read to the one that is written.

    The output starts as NaN (or 85), and operands must have exactly the stated size.
    """
    run = build(kernel, machine)["run"]

    def call(*arrays: Array) -> Array:
        given = iter(arrays)
        tensors = []
        for operand in kernel.operands:
            if operand.written:
                value = np.nan if operand.dtype == "float32" else 85
                flat = np.full(operand.size, value, operand.dtype)
            else:
                flat = np.ascontiguousarray(next(given)).ravel()
                assert flat.dtype == operand.dtype, (operand, flat.dtype)
                assert flat.size == operand.size, (operand, flat.size)
            tensors.append(tvm.runtime.tensor(flat))
        assert next(given, None) is None
        run(*tensors)
        return np.array(tensors[-1].numpy())

    return call
