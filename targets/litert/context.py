"""Emission: what the operator tables use to read operands and to write results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgevit.bundle import Binding
from edgevit.model import constant, dtype_of, shape_of
from edgevit.quantizers import stored
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.layout import Layout
from edgevit.targets.litert.movement import MAX_RANK
from edgevit.targets.litert.quantized import meaning
from edgevit.targets.litert.rules import Perm, identity_perm
from edgevit.targets.litert.sinking import Refined
from edgevit.targets.litert.writer import Writer, parameters
from edgevit.targets.views import View, identity, joined, order_perm

__all__ = ["Context", "Held", "permuted"]

Array = np.ndarray[Any, Any]
CODES = frozenset({"int8", "uint8", "int16"})
HALF_WEIGHT = 64  # elements from which a constant is worth storing as float16


def permuted(shape: Sequence[int], perm: Sequence[int]) -> tuple[int, ...]:
    """``shape`` of ``x.transpose(perm)``."""
    return tuple(shape[p] for p in perm)


@dataclass(frozen=True)
class Held:
    """A value as the artifact holds it: a tensor, and where the elements lie in it."""

    tensor: int
    view: View


class Context:
    """State of one emission.

    Attributes:
        writer: The flatbuffer under construction.
        group: The group being lowered.
        perm: Order of axes that the plan gave it.
        bindings: Debug map so far, in execution order.
        dynamic: Whether layers with stored weights quantize their activations as they run.
    """

    def __init__(
        self,
        writer: Writer,
        layout: Layout,
        boundary: Callable[[ir.Value], Perm],
        *,
        half: bool,
        dynamic: bool = False,
    ) -> None:
        self.writer = writer
        self.dynamic = dynamic
        self._boundary = boundary
        self.bindings: dict[str, Binding] = {}
        self.group: Group
        self.perm: Perm = ()
        self._layout = layout
        self._half = half
        self._bound: set[int] = set()  # tensors in the debug map
        self._held: dict[ir.Value, Held] = {}
        self._moved: dict[tuple[Any, ...], int] = {}

    def enter(self, group: Group) -> None:
        """Begin to lower a group."""
        self.group = group
        self.perm = self._layout.perms.get(group.output.name or "", ())

    # -- operands

    def constant(self, label: str, array: Any, dtype: str | None = None) -> int:
        """A constant tensor that the lowering makes (axes, shapes, scalars)."""
        made = np.asarray(array) if dtype is None else np.asarray(array, dtype)
        return self.writer.constant(label, made)

    def weight(self, name: str, array: Array) -> int:
        """A constant of the model, stored in the precision that was asked for."""
        if not self._half or array.dtype != np.float32 or array.size < HALF_WEIGHT:
            return self.writer.constant(name, array)
        key = ("half", self.writer.constant(f"{name}.fp16", array.astype(np.float16)))
        if key not in self._moved:
            wide = self.writer.tensor(name, array.shape, "float32")
            self.writer.operator("DEQUANTIZE", [key[1]], [wide], version=3)
            self._moved[key] = wide
        return self._moved[key]

    def held(self, value: ir.Value) -> Held:
        """How the artifact holds a value that is computed at run time."""
        return self._held[value]

    def lying_shape(self, value: ir.Value, perm: Perm) -> tuple[int, ...]:
        """The tensor's own shape if it lies in this order, else the logical shape."""
        if value.const_value is None and self._held[value].view.free(perm):
            return self.writer.shape(self._held[value].tensor)
        return permuted(shape_of(value), perm)

    def read(
        self,
        value: ir.Value,
        perm: Perm | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> int:
        """A tensor that holds ``value.transpose(perm).reshape(shape)``."""
        perm = identity_perm(len(shape_of(value))) if perm is None else perm
        shape = permuted(shape_of(value), perm) if shape is None else shape
        array = constant(value)
        if array is not None:
            found = meaning(value) if array.dtype.name in CODES else None
            moved = array.transpose(perm).reshape(shape)
            if found is None:
                return self.weight(value.name or "", moved)
            params = parameters(found.scale, found.zero_point, found.axis)
            return self.writer.codes(value.name or "", moved, array.dtype.name, params)
        tensor = self._ordered(value, perm, shape)
        return self._reshaped(value, tensor, perm, shape)

    def read_any(self, value: ir.Value, perms: Sequence[Perm]) -> tuple[int, Perm]:
        """Read in the first of the orders that costs nothing, else in the first."""
        free = [
            p for p in perms if value.const_value is not None or self._held[value].view.free(p)
        ]
        perm = free[0] if free else perms[0]
        return self.read(value, perm), perm

    def sunk(self, group: Group) -> Refined | None:
        """The order to which the plan transposes a split's operand, if it does."""
        return self._layout.sunk.get(group.output.name or "")

    def read_refined(self, value: ir.Value, shape: tuple[int, ...], perm: Perm) -> int:
        """A tensor that holds ``value.reshape(shape).transpose(perm)``."""
        held = self._held[value]
        view = held.view.reshape(shape)
        if view is None:
            raise ValueError(f"value {value.name!r} does not split into {shape}")
        target = permuted(shape, perm)
        if view.free(identity_perm(len(shape))):
            lying = self.reshape(held.tensor, shape)
            return self._transposed(value, lying, perm)
        moves = view.moves(perm)
        if moves.perm is None:
            return self.reshape(held.tensor, target)
        lying = self.reshape(held.tensor, moves.source)
        return self.reshape(self._transposed(value, lying, moves.perm), target)

    def part(
        self, value: ir.Value, shape: tuple[int, ...], perm: Perm, target: tuple[int, ...]
    ) -> int:
        """A new tensor of shape ``target`` for ``value.reshape(shape).transpose(perm)``."""
        view = identity(shape, perm).reshape(shape_of(value))
        if view is None:
            raise ValueError(f"value {value.name!r} does not join from {shape}")
        natural = view.natural()
        made = self.tensor(f"{value.name}/heads", target, value)
        self._held[value] = Held(made, view)
        if natural is not None:
            self.bind(value, made, natural)
        return made

    def _ordered(self, value: ir.Value, perm: Perm, shape: tuple[int, ...]) -> int:
        held = self._held[value]
        if held.view.free(perm):
            if held.tensor not in self._bound:
                self.bind(value, held.tensor, perm)
            return held.tensor
        source, order = self._steps(value, perm)
        key = ("transpose", held.tensor, source, order)
        if key in self._moved:
            return self._moved[key]
        lying = self.reshape(held.tensor, source)
        target = permuted(source, order)
        name = self._moved_name(value, perm, target)
        moved = self._transposed(value, lying, order, name)
        self._moved[key] = moved
        if target == shape:
            self.bind(value, moved, perm)
        return moved

    def _transposed(self, value: ir.Value, lying: int, order: Perm, name: str = "") -> int:
        """TRANSPOSE of a tensor that holds ``value`` in some shape."""
        shape = permuted(self.writer.shape(lying), order)
        label = name or f"{value.name}/layout"
        moved = self._like(label, shape, lying)
        axes = self.constant("perm", order, "int32")
        version = 1 if len(order) <= 4 else 5
        self.writer.operator(
            "TRANSPOSE",
            [lying, axes],
            [moved],
            version=version,
            options=schema.TransposeOptionsT(),
        )
        return moved

    def _steps(self, value: ir.Value, perm: Perm) -> tuple[tuple[int, ...], Perm]:
        """Source shape and permutation of the transpose, without reshapes if possible."""
        held = self._held[value]
        lying = self.writer.shape(held.tensor)
        axes = identity(lying).axes
        direct = order_perm(axes, joined(held.view.order(perm), axes))
        if direct is not None and len(direct) <= MAX_RANK:
            return lying, direct
        moves = held.view.moves(perm)
        if moves.perm is None:
            raise ValueError(f"value {value.name!r} needs no transpose")
        return moves.source, moves.perm

    def _reshaped(
        self, value: ir.Value, tensor: int, perm: Perm, shape: tuple[int, ...]
    ) -> int:
        if self.writer.shape(tensor) == shape:
            return tensor
        key = ("reshape", tensor, shape)
        if key in self._moved:
            return self._moved[key]
        whole = shape == permuted(shape_of(value), perm)
        made = self.reshape(tensor, shape, self._moved_name(value, perm, shape))
        if whole:
            self.bind(value, made, perm)
        return made

    def _moved_name(self, value: ir.Value, perm: Perm, shape: tuple[int, ...]) -> str:
        """The value's name for its first whole tensor, else one that says it is a copy."""
        whole = shape == permuted(shape_of(value), perm)
        known = value.name in self.bindings or value.is_graph_input()
        if whole and not known and self._claims(value, perm, shape):
            return f"{value.name}"
        return f"{value.name}/layout"

    def _claims(self, value: ir.Value, perm: Perm, shape: tuple[int, ...]) -> bool:
        """Whether a tensor may carry the value's name: an output's belongs to the boundary."""
        if not value.is_graph_output():
            return True
        wanted = self._boundary(value)
        return perm == wanted and shape == permuted(shape_of(value), wanted)

    def reshape(self, tensor: int, shape: tuple[int, ...], name: str = "") -> int:
        """RESHAPE, or the tensor itself if it has that shape."""
        if self.writer.shape(tensor) == shape:
            return tensor
        key = ("reshape", tensor, shape)
        if key not in self._moved:
            label = name or f"{self.writer.name(tensor)}/reshape"
            made = self._like(label, shape, tensor)
            self.copy(tensor, made)
            self._moved[key] = made
        return self._moved[key]

    def copy(self, tensor: int, target: int) -> None:
        """RESHAPE ``tensor`` into the existing tensor ``target``."""
        shape = self.writer.shape(target)
        dims = self.constant("shape", shape, "int32")
        options = schema.ReshapeOptionsT(newShape=list(shape))
        self.writer.operator("RESHAPE", [tensor, dims], [target], options=options)

    def _like(self, name: str, shape: Sequence[int], tensor: int) -> int:
        """A new tensor of another one's dtype and meaning."""
        dtype, quantization = self.writer.dtype(tensor), self.writer.quantization(tensor)
        return self.writer.tensor(name, shape, dtype, quantization=quantization)

    def tensor(self, name: str, shape: Sequence[int], value: ir.Value) -> int:
        """A new tensor of a value's dtype; codes carry what they mean."""
        dtype = dtype_of(value).name
        found = meaning(value) if dtype in CODES else None
        params = found and parameters(found.scale, found.zero_point, found.axis)
        return self.writer.tensor(name, shape, dtype, quantization=params)

    # -- results

    def emit(
        self,
        op: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        *,
        dtype: str | None = None,
        options: Any = None,
        version: int = 1,
    ) -> int:
        """An operator whose result is internal to the group.

        Args:
            op: Name in ``BuiltinOperator``.
            inputs: Tensors, -1 for an absent one.
            shape: Shape of the result.
            dtype: numpy dtype name of the result; that of the first input by default.
            options: Options object of the schema.
            version: Operator version.
        """
        name = f"{self.group.output.name}/{op.lower()}"
        made = (
            self._like(name, shape, inputs[0])
            if dtype is None
            else self.writer.tensor(name, shape, dtype)
        )
        self.writer.operator(op, inputs, [made], version=version, options=options)
        return made

    def target(
        self, value: ir.Value, perm: Perm | None = None, shape: tuple[int, ...] | None = None
    ) -> int:
        """A new tensor that will hold ``value.transpose(perm).reshape(shape)``."""
        perm = identity_perm(len(shape_of(value))) if perm is None else perm
        shape = permuted(shape_of(value), perm) if shape is None else shape
        claims = self._claims(value, perm, shape)
        name = f"{value.name}" if claims else f"{value.name}/layout"
        made = self.tensor(name, shape, value)
        self.hold(value, made, perm)
        return made

    def hold(self, value: ir.Value, tensor: int, perm: Perm) -> None:
        """Record that ``tensor`` holds ``value.transpose(perm)`` in some shape."""
        self._held[value] = Held(tensor, identity(shape_of(value), perm))
        self.bind(value, tensor, perm)

    def adopt(self, value: ir.Value, tensor: int, perm: Perm) -> None:
        """Make an internal tensor, the last that a group emitted, the group's output."""
        if self._claims(value, perm, self.writer.shape(tensor)):
            self.writer.rename(tensor, f"{value.name}")
        self.hold(value, tensor, perm)

    def alias(self, value: ir.Value, held: Held) -> None:
        """Record that an existing tensor holds ``value``, rearranged as the view says."""
        self._held[value] = held

    def result(
        self,
        op: str,
        inputs: Sequence[int],
        *,
        options: Any = None,
        version: int = 1,
        perm: Perm | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """An operator that computes the group's output, in the order ``perm``.

        ``perm`` is the plan's by default; ``shape`` that of the permuted value.
        """
        made = self.target(self.group.output, self.perm if perm is None else perm, shape)
        self.writer.operator(op, inputs, [made], version=version, options=options)

    def bind(self, value: ir.Value, tensor: int, perm: Perm) -> None:
        """Put a value into the debug map unless it is there."""
        if value.is_graph_input() or stored(value) is not None:  # nothing computes these
            self._bound.add(tensor)
            return
        if value.name is None or value.name in self.bindings:
            return
        self._bound.add(tensor)
        self.bindings[value.name] = self.binding(value, tensor, perm)

    def binding(self, value: ir.Value, tensor: int, perm: Perm) -> Binding:
        """How ``tensor`` holds ``value``."""
        plain = perm == identity_perm(len(perm))
        if math.prod(self.writer.shape(tensor)) != math.prod(shape_of(value)):
            raise ValueError(f"tensor of {value.name!r} has another number of elements")
        return Binding(
            name=value.name or "",
            artifact=self.writer.name(tensor),
            dtype=dtype_of(value).name,
            shape=shape_of(value),
            artifact_dtype=self.writer.dtype(tensor),
            artifact_shape=self.writer.shape(tensor),
            perm=None if plain else perm,
        )
