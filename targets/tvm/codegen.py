"""From a program to one shared object: a function a kernel, one entry, code, a linker.

The entry is ``run(arena, params, first, last)``: it makes the calls ``first`` to ``last - 1``
of the program, in order. Running all of it is inference; running a few is verification, of
the very bytes that ship.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevit.errors import BackendMissingError, InternalError
from edgevit.targets.tvm.machine import Machine
from edgevit.targets.tvm.program import Program, Tensor

__all__ = ["ENTRY", "linker", "shared_object"]

ENTRY = "run"


def shared_object(
    program: Program, machine: Machine, offsets: Mapping[Tensor, int], sizes: tuple[int, int]
) -> bytes:
    """The content of the ``.so``; the same for the same program and versions.

    Args:
        program: What is called.
        machine: What it will run on.
        offsets: Byte offset of each tensor in its block.
        sizes: Bytes of the arena and of the parameters.

    Raises:
        BackendMissingError: No linker is installed.
        InternalError: Code generation fails.
    """
    import tvm

    module = _module(program, machine, offsets, sizes)
    try:
        with tvm.transform.PassContext(opt_level=3):
            built = tvm.compile(module, target=machine.target())
    except Exception as e:
        raise InternalError(f"TVM cannot generate code: {e}") from e
    with tempfile.TemporaryDirectory() as folder:
        code, out = Path(folder, "code.o"), Path(folder, "model.so")
        built.mod.write_to_file(str(code), "o")
        _link(linker(machine), code, out)
        return out.read_bytes()


def _module(
    program: Program, machine: Machine, offsets: Mapping[Tensor, int], sizes: tuple[int, int]
) -> Any:
    """The functions of all kernels, and the entry."""
    import tvm
    from tvm.ir import GlobalVar

    from edgevit.targets.tvm.kernels.kernel import function

    names: dict[Any, Any] = {}
    functions: dict[Any, Any] = {}
    for step in program.steps:
        if step.kernel not in names:
            made = GlobalVar(f"k{len(names)}_{step.kernel.label}")
            names[step.kernel] = made
            functions[made] = function(step.kernel, machine, made.name_hint)
    functions[GlobalVar(ENTRY)] = _entry(program, names, offsets, sizes)
    return tvm.IRModule(functions)


def _entry(
    program: Program,
    names: Mapping[Any, Any],
    offsets: Mapping[Tensor, int],
    sizes: tuple[int, int],
) -> Any:
    from tvm import tirx
    from tvm.ir import Call
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as T

    with IRBuilder() as builder, T.prim_func():
        T.func_name(ENTRY)
        handles = [T.arg(name, T.handle()) for name in ("arena", "params")]
        first, last = T.arg("first", T.int32()), T.arg("last", T.int32())
        blocks = {
            space: T.match_buffer(handle, (max(1, size),), "uint8")
            for space, handle, size in zip(("arena", "params"), handles, sizes, strict=True)
        }
        for i, step in enumerate(program.steps):
            with T.If(tirx.all(first <= i, i < last)), T.Then():
                pointers = [
                    T.address_of(
                        blocks[r.tensor.space][offsets[r.tensor] + r.offset * _width(r.tensor)]
                    )
                    for r in step.refs
                ]
                T.evaluate(Call(names[step.kernel], pointers, ret_ty="int32"))
    return builder.get().with_attr("global_symbol", ENTRY)


def _width(tensor: Tensor) -> int:
    return tensor.nbytes // tensor.size


def linker(machine: Machine) -> tuple[str, ...]:
    """The command that links for a machine: zig from its package, else gcc for x86-64.

    Raises:
        BackendMissingError: Neither is there.
    """
    import importlib.util

    if importlib.util.find_spec("ziglang") is not None:
        triple = f"{machine.architecture}-linux-gnu"
        return (sys.executable, "-m", "ziglang", "cc", "-target", triple)
    compiler = shutil.which("gcc")
    if compiler is not None and machine.architecture == "x86_64":
        return (compiler,)
    raise BackendMissingError(
        f"no linker for {machine.architecture}", hint="pip install 'edgevit[tvm]' brings one"
    )


def _link(command: tuple[str, ...], code: Path, out: Path) -> None:
    flags = ["-shared", "-nostdlib", "-Wl,--build-id=none", "-s", "-o", str(out), str(code)]
    done = subprocess.run(
        [*command, *flags, "-lm", "-lc"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InternalError(f"the linker fails: {done.stderr[-500:]}")
