"""What a lowering function works with: tensors by source value, constants, names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.errors import InternalError
from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.coreml.names import Names

__all__ = ["FLOAT16_MAX", "FLOAT16_TINY", "MASKED", "Array", "Context", "to_mil"]

Array = np.ndarray[Any, Any]

FLOAT16_MAX = float(np.finfo(np.float16).max)
# What stands for "minus infinity" in float16. Half of the range, so that adding a score to
# it cannot overflow: in a row that is masked whole, -inf everywhere would give NaN.
MASKED = -32768.0
FLOAT16_TINY = float(np.finfo(np.float16).smallest_subnormal)


def to_mil(array: Array, dtype: np.dtype[Any]) -> Array:
    """Convert a constant to a dtype that ML programs have.

    Floats become ``dtype``. In float16, finite values past its range saturate (masks of
    -1e38 must not become -inf, which makes NaN in a softmax row) and a non-zero scalar that
    would vanish becomes the smallest subnormal (an epsilon must still prevent 0/0).
    Integers become int32, bool stays.

    Raises:
        OverflowError: An integer does not fit into int32.
    """
    if array.dtype == np.bool_:
        return array
    if np.issubdtype(array.dtype, np.integer):
        info = np.iinfo(np.int32)
        if array.size and (array.max() > info.max or array.min() < info.min):
            raise OverflowError(
                f"an integer constant of {array.max()} does not fit into int32"
            )
        return array.astype(np.int32)
    if dtype != np.float16:
        return array.astype(dtype)
    finite = np.isfinite(array)
    safe = np.where(finite, np.clip(array, -FLOAT16_MAX, FLOAT16_MAX), array)
    narrow = safe.astype(np.float16)
    if array.size == 1:
        vanished = (narrow == 0) & (array != 0)
        narrow = np.where(vanished, np.copysign(np.float16(FLOAT16_TINY), narrow), narrow)
    return np.asarray(narrow, dtype=np.float16)


@dataclass
class Context:
    """State of one lowering.

    Attributes:
        mb: The MIL builder, inside the function's block.
        dtype: Float dtype of the program, float16 or float32.
        names: Identifiers given so far.
        system: The iOS release whose operator set the function is in.
        external: Names of model outputs that a boundary operation will write, so that the
            value itself must take another name.
        values: Source value name -> MIL variable.
        outputs: Model output name -> its name in the program.
    """

    mb: Any
    dtype: np.dtype[Any]
    names: Names
    system: int = 17
    external: frozenset[str] = frozenset()
    values: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    _constants: dict[tuple[str, tuple[int, ...], str], Any] = field(default_factory=dict)

    def get(self, value: ir.Value | None) -> Any:
        """The MIL variable of a source value; a constant becomes a ``const`` operation."""
        if value is None or value.name is None:
            raise InternalError("a canonical node lacks an input that its lowering needs")
        if value.name not in self.values:
            array = constant(value)
            if array is None:
                raise InternalError(f"value {value.name!r} is read before it is computed")
            self.values[value.name] = self.const(array, value.name)
        return self.values[value.name]

    def addend(self, value: ir.Value | None) -> Any:
        """As ``get``; in float16, what a constant has below its range becomes ``MASKED``."""
        array = constant(value)
        if array is None or value is None:
            return self.get(value)
        masked = self.masked(value, array)
        if masked is array:
            return self.get(value)
        return self.const(masked, f"{value.name}__mask")

    def masked(self, value: ir.Value, array: Array) -> Array:
        """A constant addend; in float16, what is below its range is ``MASKED``."""
        if not self.is_float(value) or self.dtype != np.float16:
            return array
        below = np.isfinite(array) & (array < -FLOAT16_MAX)
        return np.where(below, MASKED, array) if below.any() else array

    def const(self, array: Array, base: str) -> Any:
        """A constant in the program's dtypes; equal constants become one."""
        return self.exact(to_mil(np.asarray(array), self.dtype), base)

    def exact(self, array: Array, base: str) -> Any:
        """A constant in its own dtype; equal constants become one."""
        data = np.ascontiguousarray(array).reshape(array.shape)
        digest = hashlib.sha256(data.tobytes()).hexdigest()
        # Types below a byte are bytes with metadata, to numpy.
        key = (f"{data.dtype}{data.dtype.metadata or ''}", data.shape, digest)
        if key not in self._constants:
            val = data if data.ndim else data[()]
            self._constants[key] = self.mb.const(val=val, name=self.names.claim(base))
        return self._constants[key]

    def constants(self) -> frozenset[Any]:
        """The variables that ``const`` made."""
        return frozenset(self._constants.values())

    def scalar(self, number: float) -> Any:
        """A float in the program's dtype (see ``to_mil`` for what happens to tiny ones)."""
        return to_mil(np.asarray(number, np.float64), self.dtype)[()]

    def parameter(self, number: float) -> Any:
        """A number beside a tensor: float32 from iOS 17 on, the tensor's dtype before."""
        return np.float32(number) if self.system >= 17 else self.scalar(number)

    def checked(self) -> dict[str, Any]:
        """``validate_indices``, which gathers and scatters have from iOS 17 on."""
        return {"validate_indices": False} if self.system >= 17 else {}

    def whole(self, value: ir.Value | None) -> Any:
        """As ``get``, for an operand that keeps its own axes whatever the node works in."""
        return self.get(value)

    def axis(self, axis: int) -> int:
        """The axis of the program's tensors that holds axis ``axis`` of the node's."""
        return axis

    def name(self, value: ir.Value) -> str:
        """The identifier under which the program will hold ``value``."""
        if value.name is None:
            raise InternalError("a canonical value has no name")
        if value.name in self.external:
            return self.names.claim(f"{value.name}_internal")
        if value.name in self.outputs:
            return self.outputs[value.name]
        return self.names.claim(value.name)

    def emit(self, value: ir.Value, op: str, /, **inputs: Any) -> Any:
        """Add operation ``op`` that computes ``value``; checks shape and dtype."""
        var = getattr(self.mb, op)(name=self.name(value), **inputs)
        return self.bind(value, var)

    def temp(self, value: ir.Value, role: str, op: str, /, **inputs: Any) -> Any:
        """Add an intermediate operation on the way to ``value``."""
        return getattr(self.mb, op)(name=self.names.claim(f"{value.name}__{role}"), **inputs)

    def bind(self, value: ir.Value, var: Any) -> Any:
        """Record that ``var`` holds ``value``.

        Raises:
            InternalError: Shape differs from the canonical model's: a bug in a lowering.
        """
        expected = shape_of(value) or (1,)
        if tuple(var.shape) != expected:
            raise InternalError(
                f"lowering of value {value.name!r}: expected shape {expected}, the ML "
                f"program has {tuple(var.shape)}"
            )
        self.values[str(value.name)] = var
        return var

    def shape(self, value: ir.Value | None) -> tuple[int, ...]:
        """Shape of ``value`` in the program: a rank-0 tensor is held as ``(1,)``."""
        if value is None:
            raise InternalError("a canonical node lacks an input that its lowering needs")
        return shape_of(value) or (1,)

    def is_float(self, value: ir.Value | None) -> bool:
        """Whether ``value`` holds floats."""
        return value is not None and np.issubdtype(dtype_of(value), np.floating)
