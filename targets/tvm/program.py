"""A lowered network: tensors in two blocks of memory, and the calls that fill them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgevit.targets.tvm.kernels.kernel import ALIGNMENT, Kernel

__all__ = ["Program", "Ref", "Step", "Tensor"]

Array = np.ndarray[Any, Any]
Space = Literal["arena", "params"]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A flat block of elements.

    Attributes:
        label: What it holds, for listings.
        dtype: numpy dtype name.
        size: Elements.
        space: ``params`` is read only and ships with the code; ``arena`` is the caller's.
        kept: Whether its memory is its own for the whole run (the model's inputs, outputs).
    """

    label: str
    dtype: str
    size: int
    space: Space
    kept: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes, without padding."""
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Ref:
    """A pointer: an element of a tensor."""

    tensor: Tensor
    offset: int = 0


@dataclass(frozen=True)
class Step:
    """A call of a kernel."""

    kernel: Kernel
    refs: tuple[Ref, ...]

    def touched(self, *, written: bool) -> Iterator[Tensor]:
        """The tensors that the call writes, or those it reads."""
        for operand, ref in zip(self.kernel.operands, self.refs, strict=True):
            if operand.written == written:
                yield ref.tensor


@dataclass
class Program:
    """The calls, and the parameters they read; grows while a graph is lowered."""

    steps: list[Step] = field(default_factory=list)
    _params: dict[Tensor, Array] = field(default_factory=dict)
    _known: dict[str, Tensor] = field(default_factory=dict)

    def call(self, kernel: Kernel, *refs: Ref) -> None:
        """Append a call.

        Raises:
            ValueError: The references do not fit the kernel's operands (our bug).
        """
        for operand, ref in zip(kernel.operands, refs, strict=True):
            fits = ref.offset >= 0 and ref.offset + operand.size <= ref.tensor.size
            if operand.dtype != ref.tensor.dtype or not fits:
                raise ValueError(
                    f"{kernel.label}: operand {operand} does not fit {ref.tensor} "
                    f"from {ref.offset}"
                )
            if operand.written and ref.tensor.space == "params":
                raise ValueError(f"{kernel.label}: writes the parameter {ref.tensor.label}")
        self.steps.append(Step(kernel, refs))

    def constant(self, label: str, array: Array) -> Tensor:
        """A parameter; equal ones are stored once."""
        flat = np.ascontiguousarray(array).reshape(-1)
        digest = hashlib.sha256(flat.tobytes()).hexdigest()
        key = f"{flat.dtype.name} {flat.size} {digest}"
        if key not in self._known:
            made = Tensor(label, flat.dtype.name, int(flat.size), "params")
            self._known[key] = made
            self._params[made] = flat
        return self._known[key]

    def parameters(self) -> tuple[bytes, dict[Tensor, int]]:
        """The block of parameters that calls read, and each tensor's byte offset."""
        read = {r.tensor for s in self.steps for r in s.refs if r.tensor.space == "params"}
        offsets: dict[Tensor, int] = {}
        content = bytearray()
        for tensor, array in self._params.items():
            if tensor in read:
                content += bytes(-len(content) % ALIGNMENT)
                offsets[tensor] = len(content)
                content += array.tobytes()
        content += bytes(-len(content) % ALIGNMENT)
        return bytes(content), offsets

    def array(self, tensor: Tensor) -> Array:
        """The content of a parameter."""
        return self._params[tensor]

    def arena(self, kept: Sequence[Tensor]) -> tuple[int, dict[Tensor, int]]:
        """Bytes of the arena, and each tensor's byte offset.

        Tensors whose lives do not meet may share memory. Largest first, each at the lowest
        offset that is free while it lives.

        Args:
            kept: Tensors that live for the whole run.
        """
        lives = self._lives(kept)
        placed: list[tuple[Tensor, int]] = []
        for tensor in sorted(lives, key=lambda t: (-t.nbytes, lives[t])):
            placed.append((tensor, _lowest(tensor, lives, placed)))
        end = max((o + t.nbytes for t, o in placed), default=0)
        return end + (-end % ALIGNMENT), dict(placed)

    def _lives(self, kept: Sequence[Tensor]) -> dict[Tensor, tuple[int, int]]:
        """First and last step of each arena tensor."""
        whole = (-1, len(self.steps))
        lives = dict.fromkeys(kept, whole)
        for i, step in enumerate(self.steps):
            for ref in step.refs:
                tensor = ref.tensor
                if tensor.space == "arena" and not (tensor.kept or tensor in kept):
                    first, _ = lives.get(tensor, (i, i))
                    lives[tensor] = (first, i)
                elif tensor.space == "arena":
                    lives[tensor] = whole
        return lives


def _lowest(
    tensor: Tensor,
    lives: dict[Tensor, tuple[int, int]],
    placed: Sequence[tuple[Tensor, int]],
) -> int:
    """The lowest aligned offset that no tensor alive at the same time covers."""
    first, last = lives[tensor]
    taken = sorted(
        (offset, offset + other.nbytes)
        for other, offset in placed
        if lives[other][0] <= last and first <= lives[other][1]
    )
    at = 0
    for begin, end in taken:
        if at + tensor.nbytes <= begin:
            return at
        at = max(at, end + (-end % ALIGNMENT))
    return at
