"""What the bodies of GPU kernels are written with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from tvm import tirx
from tvm.script.ir_builder import tirx as T

__all__ = [
    "BLOCK",
    "WARP",
    "Schedule",
    "across",
    "barrier",
    "kept",
    "number",
    "only_if",
    "registers",
    "set_register",
    "shared",
    "unravel",
]

# Threads of a block where nothing says otherwise, and of a warp.
BLOCK, WARP = 256, 32
_EVERYONE = 0xFFFFFFFF


class Schedule(Protocol):
    """How a kernel is shared among blocks and threads.

    Attributes:
        blocks: Number of blocks, along one axis.
        threads: Threads of a block, along one axis.
    """

    @property
    def blocks(self) -> int:
        """Number of blocks."""

    @property
    def threads(self) -> int:
        """Threads of a block."""

    def write(self, buffers: Sequence[Any], block: Any, thread: Any) -> None:
        """Write what one thread does."""


def number(value: int) -> Any:
    """An int32 constant."""
    return tirx.const(value, "int32")


def registers(size: int, dtype: str = "float32") -> Any:
    """An array of a thread's own, whose indices are constants once loops are unrolled."""
    return T.alloc_buffer((size,), dtype, scope="local")


def shared(size: int, dtype: str = "float32") -> Any:
    """Memory of a block."""
    return T.alloc_buffer((size,), dtype, scope="shared")


def set_register(buffer: Any, value: Any, index: Any = 0) -> None:
    """Write one element of an array."""
    T.buffer_store(buffer, value, [index])


def kept(value: Any, dtype: str = "float32") -> Any:
    """A value in a register: an expression that names it twice computes it once."""
    register = registers(1, dtype)
    set_register(register, value)
    return register[0]


def barrier() -> None:
    """Wait for all threads of the block."""
    T.evaluate(tirx.call_intrin("void", "tirx.tvm_storage_sync", "shared"))


@contextmanager
def only_if(condition: Any, needed: bool = True) -> Iterator[None]:
    """Statements under a condition, or plain ones where it always holds."""
    if not needed:
        yield
        return
    with T.If(condition), T.Then():
        yield


def unravel(index: Any, sizes: Sequence[int]) -> list[Any]:
    """Row-major coordinates of a flat index."""
    found: list[Any] = []
    for i, size in enumerate(reversed(sizes)):
        outermost = i == len(sizes) - 1
        found.append(index if outermost else index % size)
        index = index // size
    return found[::-1]


def across(combine: Callable[[Any, Any], Any], register: Any) -> None:
    """Combine a register of all threads of a warp; each ends up with the whole."""
    for distance in (16, 8, 4, 2, 1):
        other = tirx.call_pure_extern(
            "float32",
            "__shfl_xor_sync",
            tirx.const(_EVERYONE, "uint32"),
            register[0],
            number(distance),
        )
        set_register(register, combine(register[0], kept(other)))
