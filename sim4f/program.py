"""The frame program: what a 4f system displays, masks and reads, in which order.

An optical step multiplies a tensor with a kernel. Elements of the tensor stand on a lattice of
input pixels, those of the kernel on a lattice of the impulse response; frames run over labeled
axes that either operand carries. Pixel ``r`` of the output plane holds

    E[r] = sum over p of u[p] h[(r - p) mod plane]          (Goodman, 4th ed., 8.4)

(the camera is mounted upside down, which undoes the inversion of two lenses). The program says
which pixels are read. Masks are spectra of ``h``, made when a frame runs; nothing here knows
which mapping chose the lattices, so that a wrong one gives wrong numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.sim4f.moves import Move, moved_shape
from edgevit.sim4f.signs import Signs

__all__ = ["Electronic", "Frame", "Lattice", "Operand", "Optical", "Program", "Read", "Tensor"]
__all__ += ["frame_count", "frames", "sizes"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Lattice:
    """Coordinates along one direction of a plane: nested axes, the last one fastest.

    Attributes:
        origin: Coordinate of the first element, in pixels; may be negative.
        axes: ``(size, stride)`` of each axis, outermost first.
    """

    origin: int
    axes: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return int(np.prod([size for size, _ in self.axes], dtype=np.int64))

    def coordinates(self) -> Array:
        """int64 ``[len(self)]``."""
        found = np.array([self.origin], np.int64)
        for size, stride in self.axes:
            found = (found[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
        return found


@dataclass(frozen=True)
class Operand:
    """Where the elements of a tensor stand.

    Attributes:
        moves: From the tensor to ``[*labels, rows, columns]``.
        labels: One letter for each frame axis, e.g. ``"n"`` for chunks of tokens.
        rows: Row coordinates.
        columns: Column coordinates.
    """

    moves: tuple[Move, ...]
    labels: str
    rows: Lattice
    columns: Lattice


@dataclass(frozen=True)
class Read:
    """Which pixels the camera reads in each frame, and what becomes of them.

    Attributes:
        labels: Frame axes left after the electronic sum, in the order of the moved array.
        rows: Row coordinates.
        columns: Column coordinates.
        moves: From ``[*labels, rows, columns]`` to the output tensor.
    """

    labels: str
    rows: Lattice
    columns: Lattice
    moves: tuple[Move, ...]


@dataclass(frozen=True)
class Optical:
    """A product made of light.

    Attributes:
        name: Of the output tensor.
        mapping: Name of the mapping that made it, for reports.
        source: Tensor that is displayed.
        kernel: Tensor that is masked; a stored weight if ``static``.
        static: The kernel is a weight.
        plane: Rows and columns of the planes, in pixels.
        displayed: Where the tensor stands in the input plane.
        masked: Where the kernel stands in the impulse response.
        read: What is read.
        order: Every label, the slowest first: the order of frames.
        signs: Exposures of each frame.
        bias: Stored weight added electronically, broadcast to the output; ``""`` if none.
        macs: Multiply-accumulates of the layer, for reports.
        joint: Of a joint transform correlator: by how many rows and columns the kernel is
            displayed apart from the tensor, see ``joint``; zeros: the kernel is a mask.
    """

    name: str
    mapping: str
    source: str
    kernel: str
    static: bool
    plane: tuple[int, int]
    displayed: Operand
    masked: Operand
    read: Read
    order: str
    signs: Signs
    bias: str
    macs: int
    joint: tuple[int, int] = (0, 0)

    @property
    def summed(self) -> str:
        """Labels over which electronics adds up what was read."""
        return "".join(label for label in self.order if label not in self.read.labels)


@dataclass(frozen=True)
class Electronic:
    """A part that ordinary electronics computes.

    Attributes:
        name: Of the part's file.
        inputs: ``(name in the part, tensor)``.
        outputs: ``(name in the part, tensor)``.
    """

    name: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor that crosses the border of the program."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Program:
    """Steps in order, on named tensors; weights and parts are files beside it.

    Attributes:
        steps: Each reads inputs or what earlier steps made.
        inputs: Fed from outside.
        outputs: Wanted.
        shapes: Of every tensor and weight that an optical step touches.
    """

    steps: tuple[Optical | Electronic, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def optical(self) -> tuple[Optical, ...]:
        """The optical steps."""
        return tuple(s for s in self.steps if isinstance(s, Optical))


@dataclass(frozen=True)
class Frame:
    """One frame: entries of the displayed and of the masked operand."""

    displayed: tuple[int, ...]
    masked: tuple[int, ...]
    read: tuple[int, ...]


def sizes(step: Optical, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The size of each label.

    Raises:
        ValueError: An operand's moves do not end in its lattice, or labels disagree.
    """
    found: dict[str, int] = {}
    for what, operand, tensor in (
        ("displayed", step.displayed, step.source),
        ("masked", step.masked, step.kernel),
    ):
        shape = moved_shape(operand.moves, shapes[tensor])
        lattice = (len(operand.rows), len(operand.columns))
        if shape[-2:] != lattice or len(shape) != len(operand.labels) + 2:
            raise ValueError(
                f"step {step.name!r}: {what} operand of shape {shape}: expected labels "
                f"{operand.labels!r} and a lattice of {lattice}"
            )
        for label, size in zip(operand.labels, shape, strict=False):
            if found.setdefault(label, size) != size:
                raise ValueError(
                    f"step {step.name!r}: label {label!r} has sizes {found[label]} and {size}"
                )
    if sorted(found) != sorted(step.order):
        raise ValueError(f"step {step.name!r}: order {step.order!r} of labels {sorted(found)}")
    return found


def frames(step: Optical, shapes: Mapping[str, Sequence[int]]) -> Iterator[Frame]:
    """Every frame in order; each is exposed once for each of ``step.signs.exposures``."""
    size = sizes(step, shapes)
    for at in itertools.product(*(range(size[label]) for label in step.order)):
        here = dict(zip(step.order, at, strict=True))
        yield Frame(
            tuple(here[label] for label in step.displayed.labels),
            tuple(here[label] for label in step.masked.labels),
            tuple(here[label] for label in step.read.labels),
        )


def frame_count(step: Optical, shapes: Mapping[str, Sequence[int]]) -> int:
    """Frames without the sign factor."""
    return int(np.prod([*sizes(step, shapes).values(), 1], dtype=np.int64))
