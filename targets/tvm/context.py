"""Emission: what the operator tables use to read values and to define them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.quantizers import stored
from edgevit.targets.neighbors import fixed
from edgevit.targets.tvm.kernels.pointwise import (
    Apply,
    Const,
    Expression,
    In,
    Pointwise,
    size_of,
)
from edgevit.targets.tvm.machine import Machine
from edgevit.targets.tvm.program import Program, Ref, Tensor
from edgevit.targets.tvm.strides import Held, dense, joined, loops
from edgevit.targets.tvm.tiles import Tiles
from edgevit.targets.views import Factor, View, squeezed

__all__ = ["Context", "Rows", "Waiting", "numbers_of"]

# An expression that waits for its reader may grow to this many operands.
MAX_OPERANDS = 6
# And to this size where it is written out; a chain of functions would grow exponentially.
MAX_SIZE = 64


@dataclass(frozen=True)
class Waiting:
    """A pointwise result that its only reader will compute."""

    expression: Expression
    sources: tuple[Held, ...]
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Rows:
    """A value as rows of neighbors.

    Attributes:
        ref: The first row.
        count: Number of rows.
        stride: Elements from row to row.
        lead: For each leading axis its factors, strides in rows.
    """

    ref: Ref
    count: int
    stride: int
    lead: tuple[tuple[Factor, ...], ...]

    def view(self, columns: int, spare: int | None = None) -> View:
        """The view of a dense result whose rows are in this order."""
        width = columns if spare is None else spare
        lead = tuple(tuple((s, t * width) for s, t in axis) for axis in self.lead)
        return View((*lead, ((columns, 1),) if columns > 1 else ()))


class Context:
    """State of one emission.

    Attributes:
        program: The calls so far.
        machine: What they will run on.
        held: Source values that have a place.
        tiles: Register tiles of products.
        dynamic: Whether layers with stored weights quantize their data as they run.
        coded: Codes of rows and their steps, of values that such layers have read, and of
            the axis that their rows lie along.
    """

    def __init__(
        self, machine: Machine, *, dynamic: bool = False, tiles: Tiles | None = None
    ) -> None:
        self.machine, self.dynamic = machine, dynamic
        self.tiles = Tiles(machine, {}) if tiles is None else tiles
        self.coded: dict[tuple[ir.Value, int], tuple[Rows, Ref]] = {}
        self.program = Program()
        self.held: dict[ir.Value, Held] = {}
        self._waiting: dict[ir.Value, Waiting] = {}
        self._copies: dict[tuple[Tensor, int, View, tuple[int, ...]], Held] = {}
        self._done: set[ir.Node] = set()

    def finish(self, node: ir.Node) -> None:
        """Say that another node's kernel computes this node too."""
        self._done.add(node)

    def done(self, node: ir.Node) -> bool:
        """Whether a kernel computes this node already."""
        return node in self._done

    def known(self, value: ir.Value) -> bool:
        """Whether a value can be read already."""
        there = value in self.held or value in self._waiting
        return there or fixed(value)

    # -- values

    def new(
        self, label: str, size: int, dtype: str = "float32", *, kept: bool = False
    ) -> Tensor:
        """A tensor in the arena."""
        return Tensor(label, dtype, size, "arena", kept)

    def define(self, value: ir.Value, held: Held) -> None:
        """Say where a value is."""
        self.held[value] = held

    def parameter(self, label: str, array: np.ndarray) -> Ref:
        """The pointer to a constant of the lowering."""
        return Ref(self.program.constant(label, np.asarray(array)))

    def read(self, value: ir.Value) -> Held:
        """Where a value is; what waits is computed, constants become parameters."""
        if value in self._waiting:
            self.define(value, self.force(self._waiting.pop(value), value.name or ""))
        if value not in self.held:
            array = numbers_of(value)
            if array is None:
                raise ValueError(f"value {value.name!r} is read before it is computed")
            tensor = self.program.constant(value.name or "", _plain(array))
            self.held[value] = Held(tensor, 0, dense(array.shape))
        return self.held[value]

    # -- pointwise

    def pointwise(
        self, value: ir.Value, name: str, inputs: Sequence[ir.Value], *numbers: float
    ) -> None:
        """``value = name(inputs...)``, now or when its only reader is computed."""
        waiting = self.waiting(value, name, inputs, *numbers)
        small = size_of(waiting.expression) <= MAX_SIZE
        if _fusable(value) and small and len(waiting.sources) < MAX_OPERANDS:
            self._waiting[value] = waiting
        else:
            self.define(value, self.force(waiting, value.name or ""))

    def waiting(
        self, value: ir.Value, name: str, inputs: Sequence[ir.Value], *numbers: float
    ) -> Waiting:
        """``name(inputs...)`` in the shape and dtype of ``value``, not computed yet."""
        expressions: list[Expression] = []
        sources: list[Held] = []
        for one in inputs:
            expressions.append(self._expression(one, shape_of(value), sources))
        whole = Apply(name, tuple(expressions), tuple(numbers))
        return Waiting(whole, tuple(sources), shape_of(value), dtype_of(value).name)

    def postpone(self, value: ir.Value, waiting: Waiting) -> None:
        """Compute a value when, and if, somebody reads it."""
        self._waiting[value] = waiting

    def _expression(
        self, value: ir.Value, shape: tuple[int, ...], sources: list[Held]
    ) -> Expression:
        array = constant(value)
        if array is not None and array.size == 1:
            return Const(array.reshape(-1)[0].item(), array.dtype.name)
        waiting = self._waiting.get(value)
        if waiting is not None and waiting.shape == shape and _fusable(value):
            del self._waiting[value]
            moved = [_index(sources, s) for s in waiting.sources]
            return _renumbered(waiting.expression, moved)
        return In(_index(sources, self.read(value)))

    def force(self, waiting: Waiting, label: str, out: Held | None = None) -> Held:
        """Compute a pointwise result, into a new tensor or into ``out``."""
        shape, sources = waiting.shape, list(waiting.sources)
        views = [s.view for s in sources] + ([] if out is None else [out.view])
        cut = loops(shape, views)
        if cut is None:
            sources = [self.copied(s, _own_shape(s), None) for s in sources]
            views = [s.view for s in sources] + ([] if out is None else [out.view])
            cut = loops(shape, views)
        if cut is None:
            raise ValueError(f"{label}: no common loops over {shape}")
        pieces, walks = cut
        order = _order([p for axis in pieces for p in axis], walks[: len(sources)])
        if out is None:
            tensor = self.new(label, math.prod(shape), waiting.dtype)
            out = Held(tensor, 0, _ordered_view(pieces, order))
            walk = tuple(f for axis in out.view.axes for f in axis)
        else:
            walk = walks[-1]
        every = [walk, *walks[: len(sources)]]
        sizes = [walk[i][0] for i in order]
        nest = joined(sizes, [tuple(w[i][1] for w in every) for i in order])
        dtypes = (waiting.dtype, *(s.tensor.dtype for s in sources))
        kernel = Pointwise(waiting.expression, nest, dtypes)
        self.program.call(kernel, out.ref, *(s.ref for s in sources))
        return out

    def copied(self, held: Held, shape: tuple[int, ...], order: Sequence[int] | None) -> Held:
        """A dense copy with axes in ``order`` (logical by default), or what lies so."""
        perm = tuple(range(len(shape))) if order is None else tuple(order)
        target = dense(shape, perm)
        if held.view == target or held.walk(perm) == _whole(shape):
            return Held(held.tensor, held.offset, target)
        key = (held.tensor, held.offset, held.view, perm)
        if key not in self._copies:
            tensor = self.new(f"{held.tensor.label}/copy", math.prod(shape), held.tensor.dtype)
            made = Held(tensor, 0, target)
            waiting = Waiting(In(0), (held,), shape, tensor.dtype)
            self._copies[key] = self.force(waiting, tensor.label, made)
        return self._copies[key]

    def fill(self, out: Held, shape: tuple[int, ...], number: float) -> None:
        """Write one number into a view."""
        waiting = Waiting(Const(number, out.tensor.dtype), (), shape, out.tensor.dtype)
        self.force(waiting, out.tensor.label, out)

    def copy_into(self, out: Held, source: Held, shape: tuple[int, ...]) -> None:
        """Copy a value into a view of the same shape."""
        waiting = Waiting(In(0), (source,), shape, source.tensor.dtype)
        self.force(waiting, out.tensor.label, out)

    # -- rows

    def rows(self, value: ir.Value) -> Rows:
        """A value as rows of its last axis, copied if it does not lie so."""
        held, shape = self.read(value), shape_of(value)
        found = _rows(held, shape)
        if found is None:
            found = _rows(self.copied(held, shape, None), shape)
        if found is None:
            raise ValueError(f"value {value.name!r} of shape {shape} has no rows")
        return found


def numbers_of(value: ir.Value) -> np.ndarray | None:
    """A constant, or what the codes of a stored one mean."""
    found = stored(value)
    return constant(value) if found is None else found.numbers()


def _plain(array: np.ndarray) -> np.ndarray:
    return array if array.dtype != np.float64 else array.astype(np.float32)


def _fusable(value: ir.Value) -> bool:
    """Whether a pointwise result may wait for its reader."""
    uses = tuple(value.uses())
    return len(uses) == 1 and not value.is_graph_output()


def _index(sources: list[Held], held: Held) -> int:
    if held not in sources:
        sources.append(held)
    return sources.index(held)


def _renumbered(expression: Expression, numbers: Sequence[int]) -> Expression:
    if isinstance(expression, In):
        return In(numbers[expression.index])
    if isinstance(expression, Const):
        return expression
    args = tuple(_renumbered(a, numbers) for a in expression.args)
    return Apply(expression.name, args, expression.numbers)


def _own_shape(held: Held) -> tuple[int, ...]:
    return held.view.shape


def _whole(shape: Sequence[int]) -> tuple[Factor, ...]:
    size = math.prod(shape)
    return ((size, 1),) if size > 1 else ()


def _order(sizes: Sequence[int], walks: Sequence[Sequence[Factor]]) -> list[int]:
    """Loops, outermost first, so that the operand with most elements is walked in order."""
    every = list(range(len(sizes)))
    full = [w for w in walks if all(stride for _, stride in w)]
    if not full:
        return every
    return sorted(every, key=lambda i: -full[0][i][1])


def _ordered_view(pieces: Sequence[tuple[int, ...]], order: Sequence[int]) -> View:
    """The view of a new dense tensor whose pieces of axes lie in ``order``."""
    sizes = [p for axis in pieces for p in axis]
    strides, stride = [0] * len(sizes), 1
    for i in reversed(order):
        strides[i] = stride
        stride *= sizes[i]
    axes, at = [], 0
    for axis in pieces:
        axes.append(tuple((sizes[at + j], strides[at + j]) for j in range(len(axis))))
        at += len(axis)
    return View(tuple(axes))


def _rows(held: Held, shape: tuple[int, ...]) -> Rows | None:
    columns = shape[-1]
    if squeezed(list(held.view.axes[-1])) not in ((), ((columns, 1),)):
        return None
    if columns > 1 and not held.view.axes[-1]:
        return None
    lead = [f for axis in held.view.axes[:-1] for f in axis]
    if any(stride == 0 for _, stride in lead):
        return None
    merged = squeezed(sorted(lead, key=lambda f: -f[1]))
    if len(merged) > 1:
        return None
    count, stride = merged[0] if merged else (1, columns)
    inner = [tuple((s, t // stride) for s, t in axis) for axis in held.view.axes[:-1]]
    return Rows(held.ref, count, stride, tuple(inner))
