"""One kernel by itself, for tests and measurements: compiled, called on numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgevit.targets.tvm.kernels.kernel import Kernel
from edgevit.targets.tvm.machine import Machine

__all__ = ["Single", "build"]

Array = np.ndarray[Any, Any]


def build(kernel: Kernel, machine: Machine) -> Any:
    """A compiled module whose function ``run`` takes one flat tensor an operand."""
    import tvm
    from tvm import ir
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as T

    from edgevit.targets.tvm.kernels.kernel import function

    name = ir.GlobalVar("kernel")
    with IRBuilder() as builder, T.prim_func():
        T.func_name("run")
        handles = [T.arg(f"p{i}", T.handle()) for i in range(len(kernel.operands))]
        buffers = [
            T.match_buffer(handle, (o.size,), o.dtype)
            for handle, o in zip(handles, kernel.operands, strict=True)
        ]
        T.evaluate(ir.Call(name, [T.address_of(b[0]) for b in buffers], ret_ty="int32"))
    run = builder.get().with_attr("global_symbol", "run")
    functions = {name: function(kernel, machine, "kernel"), ir.GlobalVar("run"): run}
    return tvm.compile(tvm.IRModule(functions), target=machine.target())


class Single:
    """A kernel on operands of its own.

    Args:
        kernel: What is called; the operand it writes last is the result.
        machine: This one.
        arrays: The operands that are read, in order, of exactly the stated sizes. Written
            ones start as NaN (integers: 85).
    """

    def __init__(self, kernel: Kernel, machine: Machine, arrays: Sequence[Array]) -> None:
        import tvm

        given = iter(arrays)
        flat = []
        for o in kernel.operands:
            start = np.nan if o.dtype == "float32" else 85
            one = np.full(o.size, start, o.dtype) if o.written else next(given).ravel()
            if one.dtype != o.dtype or one.size != o.size:
                raise ValueError(f"{o}: found {one.dtype} [{one.size}]")
            flat.append(tvm.runtime.tensor(np.ascontiguousarray(one)))
        if next(given, None) is not None:
            raise ValueError("more arrays than operands")
        self._tensors = flat
        self._run = build(kernel, machine)["run"]
        written = [i for i, o in enumerate(kernel.operands) if o.written]
        self._result = written[-1]

    def __call__(self) -> None:
        """Run once."""
        self._run(*self._tensors)

    def result(self) -> Array:
        """What the last run wrote, flat."""
        return np.array(self._tensors[self._result].numpy())
