"""What every kernel is: a hashable specification that writes the TIR of one function.

Equal specifications are one function, however many layers call it. Functions take raw
pointers, one an operand, and nothing else: shapes are constants in the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from tvm import tirx
from tvm.ir import PrimType
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.machine import Machine

__all__ = [
    "Kernel",
    "Operand",
    "fetch",
    "function",
    "kept",
    "load",
    "local",
    "loop",
    "spread",
    "store",
    "vector",
]

ALIGNMENT = 64


@dataclass(frozen=True)
class Operand:
    """A pointer argument.

    Attributes:
        name: For readers of the code.
        dtype: numpy dtype name of the elements.
        size: Elements that the kernel may touch, from the pointer on.
        written: Whether the kernel writes there.
    """

    name: str
    dtype: str
    size: int
    written: bool = False


class Kernel(Protocol):
    """A frozen dataclass whose fields are all that the code depends on."""

    @property
    def label(self) -> str:
        """Short name of the class of operator, part of the function's name."""

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The arguments, in order."""

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Write the statements, inside an open function; one flat buffer an operand."""


def function(kernel: Kernel, machine: Machine, name: str) -> Any:
    """The private TIR function of a kernel; it returns 0."""
    with IRBuilder() as builder, T.prim_func(is_private=True):
        T.func_name(name)
        T.func_ret(PrimType("int32"))
        pointers = [T.arg(o.name, T.handle(o.dtype)) for o in kernel.operands]
        buffers = [
            T.decl_buffer((o.size,), o.dtype, data=p, align=4)
            for o, p in zip(kernel.operands, pointers, strict=True)
        ]
        kernel.body(machine, *buffers)
        T.Return(tirx.const(0, "int32"))
    return builder.get()


@contextmanager
def loop(count: int, *, parallel: bool = False) -> Iterator[Any]:
    """A loop over ``range(count)``; its variable is 0 where that is all there is."""
    if count == 1:
        yield tirx.const(0, "int32")
        return
    with (T.parallel if parallel else T.serial)(0, count) as index:
        yield index


def vector(start: Any, lanes: int) -> Any:
    """The index of ``lanes`` neighbors from ``start`` on."""
    return T.ramp(start, 1, lanes) if lanes > 1 else start


def load(buffer: Any, start: Any, lanes: int) -> Any:
    """``lanes`` neighboring elements of a flat buffer."""
    return buffer[vector(start, lanes)]


def store(buffer: Any, start: Any, value: Any, lanes: int) -> None:
    """Write ``lanes`` neighboring elements of a flat buffer."""
    T.buffer_store(buffer, value, [vector(start, lanes)])


def spread(value: Any, lanes: int) -> Any:
    """The same number in every lane."""
    return T.Broadcast(value, lanes) if lanes > 1 else value


def local(lanes: int, dtype: str = "float32") -> Any:
    """A register: a buffer so small, and indexed so plainly, that LLVM keeps it in one.

    Scope ``global`` with a constant size is a stack slot in generated code, which LLVM
    promotes; scope ``local`` would be a call of the workspace allocator.
    """
    return T.alloc_buffer((lanes,), dtype, scope="global")


def kept(value: Any, lanes: int, dtype: str = "float32") -> Any:
    """A value in a register, so that no expression is written twice."""
    register = local(lanes, dtype)
    store(register, 0, value, lanes)
    return load(register, 0, lanes)


def fetch(buffer: Any, at: Any) -> None:
    """Ask for an element that is read later; nothing happens where there is none."""
    read, near, data = (tirx.const(i, "int32") for i in (0, 3, 1))
    place = T.address_of(buffer[at])
    T.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", place, read, near, data))
