"""The state of a lowering in which each value may lie in another order of axes.

Reshape and Transpose are written down as views and emit nothing. Reading a value in a layout
emits at most one transpose, and only if it does not lie like that already; what was read once
is not moved again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from edgevit.errors import InternalError
from edgevit.model import constant, shape_of
from edgevit.targets.coreml.context import Array, Context
from edgevit.targets.coreml.layouts import Layout, plain
from edgevit.targets.coreml.moving import Move, moves
from edgevit.targets.coreml.rule import i32
from edgevit.targets.views import View, identity

__all__ = ["Arranged", "Held", "extended"]

_ARGUMENTS = {"transpose": "perm", "reshape": "shape"}


@dataclass(frozen=True)
class Held:
    """Where a value lies: the tensor, and how its buffer is walked to give the value."""

    var: Any
    view: View

    def with_var(self, var: Any) -> Held:
        """The same walk of another tensor."""
        return Held(var, self.view)

    def free(self, layout: Layout) -> bool:
        """Whether the tensor holds the value in this layout, up to a reshape."""
        return self.view.free(layout.perm)


def _shape(value: ir.Value) -> tuple[int, ...]:
    """A rank-0 value is held as ``(1,)``."""
    return shape_of(value) or (1,)


def extended(view: View, rank: int) -> View:
    """The view with leading axes of size one."""
    return View(((),) * (rank - len(view.axes)) + view.axes)


@dataclass
class Arranged(Context):
    """A ``Context`` that keeps track of layouts.

    Attributes:
        frame: The layout in which the current node works; ``None``: in the value's own axes.
        layouts: Values that ``values`` holds in another layout than their own.
    """

    frame: Layout | None = None
    layouts: dict[str, Layout] = field(default_factory=dict)
    _full: tuple[int, ...] = ()
    _held: dict[str, Held] = field(default_factory=dict)
    _moved: dict[tuple[str, Move], Any] = field(default_factory=dict)

    @contextmanager
    def working_in(self, layout: Layout, full: tuple[int, ...]) -> Iterator[None]:
        """Everything read, written and asked for inside is in ``layout``.

        Args:
            layout: A layout of the result's rank.
            full: Shape of the result, against which constants are broadcast.
        """
        self.frame, self._full = (None if layout.is_plain else layout), full
        try:
            yield
        finally:
            self.frame = None

    def held(self, value: ir.Value) -> Held:
        """Where ``value`` lies.

        Raises:
            InternalError: It is not computed yet.
        """
        name = str(value.name)
        if name not in self._held:
            if name not in self.values:
                raise InternalError(f"value {name!r} is read before it is computed")
            self._held[name] = Held(self.values[name], identity(_shape(value)))
        return self._held[name]

    def alias(self, value: ir.Value, source: Held, view: View) -> None:
        """Record that ``value`` lies where ``source`` does, walked in another way."""
        self._held[str(value.name)] = Held(source.var, view)

    def get(self, value: ir.Value | None) -> Any:
        """``value`` in the layout of the node."""
        if value is None or self.frame is None:
            return self.whole(value)
        array = constant(value)
        if array is None:
            return self.read(value, self.frame)
        return self._constant(value, array)

    def addend(self, value: ir.Value | None) -> Any:
        """As ``get``; in float16, what a constant has below its range becomes ``MASKED``."""
        array = constant(value)
        if array is None or value is None or self.frame is None:
            return super().addend(value)
        return self._constant(value, self.masked(value, array))

    def _constant(self, value: ir.Value, array: Array) -> Any:
        if array.size == 1 or self.frame is None:
            return self.const(array, str(value.name))
        return self.const(self.frame.arrange(array, self._full), str(value.name))

    def whole(self, value: ir.Value | None) -> Any:
        """``value`` in its own axes."""
        if value is None or constant(value) is not None:
            return super().get(value)
        return self.read(value, plain(len(_shape(value))))

    def read(self, value: ir.Value, layout: Layout) -> Any:
        """The tensor that holds ``value`` in ``layout``; moves it there if need be.

        A value of lower rank than the layout is broadcast: it gets leading axes.
        """
        held = self.held(value)
        view = extended(held.view, layout.rank)
        steps = moves(tuple(held.var.shape), view, layout)
        var = held.var
        for number, step in enumerate(steps):
            var = self._step(value, var, step, layout, last=number == len(steps) - 1)
        return var

    def _step(
        self, value: ir.Value, var: Any, step: Move, layout: Layout, *, last: bool
    ) -> Any:
        key = (var.name, step)
        if key in self._moved:
            return self._moved[key]
        first = last and str(value.name) not in self.values
        own = first and layout.rank == len(_shape(value))
        if own or (last and self._delivers(value, layout)):
            name = self.name_in(value, layout)
        else:
            name = self.names.claim(f"{value.name}__moved")
        argument = {_ARGUMENTS[step.op]: i32(step.argument)}
        made = getattr(self.mb, step.op)(x=var, name=name, **argument)
        if own:
            self._note(value, made, layout)
        self._moved[key] = made
        return made

    def _delivers(self, value: ir.Value, layout: Layout) -> bool:
        """Whether the tensor is a model output, in the shape that the model gives it."""
        name = str(value.name)
        if not layout.is_plain or layout.rank != len(_shape(value)):
            return False
        return name in self.outputs and name not in self.external and name in self.layouts

    def _note(self, value: ir.Value, var: Any, layout: Layout) -> None:
        self.values[str(value.name)] = var
        if not layout.is_plain:
            self.layouts[str(value.name)] = layout

    def name_in(self, value: ir.Value, layout: Layout) -> str:
        """The identifier under which the program will hold ``value`` in ``layout``."""
        if not layout.is_plain and value.name in self.outputs:
            return self.names.claim(f"{value.name}_internal")
        return super().name(value)

    def name(self, value: ir.Value) -> str:
        """The identifier under which the program will hold ``value``."""
        return self.name_in(value, self.frame or plain(len(_shape(value))))

    def bind(self, value: ir.Value, var: Any) -> Any:
        """Record that ``var`` holds ``value`` in the layout of the node."""
        return self.bind_in(value, var, self.frame or plain(len(_shape(value))))

    def bind_in(self, value: ir.Value, var: Any, layout: Layout) -> Any:
        """Record that ``var`` holds ``value`` in ``layout``.

        Raises:
            InternalError: It has another shape: a bug in a lowering.
        """
        shape = _shape(value)
        expected = layout.shape(shape)
        if tuple(var.shape) != expected:
            raise InternalError(
                f"lowering of value {value.name!r}: expected shape {expected}, the ML "
                f"program has {tuple(var.shape)}"
            )
        self._note(value, var, layout)
        self._held[str(value.name)] = Held(var, identity(shape, layout.perm))
        return var

    def emit_in(self, value: ir.Value, layout: Layout, op: str, /, **inputs: Any) -> Any:
        """Add operation ``op`` that computes ``value`` in ``layout``."""
        var = getattr(self.mb, op)(name=self.name_in(value, layout), **inputs)
        return self.bind_in(value, var, layout)

    def shape(self, value: ir.Value | None) -> tuple[int, ...]:
        """Shape of the tensor that holds ``value`` in the layout of the node."""
        own = super().shape(value)
        if self.frame is None:
            return own
        return self.frame.shape((1,) * (self.frame.rank - len(own)) + own)

    def axis(self, axis: int) -> int:
        """The axis of the node's tensors that holds axis ``axis`` of its values."""
        if self.frame is None:
            return axis
        place = self.frame.place(axis)
        if place is None:
            raise InternalError(f"axis {axis} is joined with others in {self.frame}")
        return place
