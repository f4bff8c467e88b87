"""Execute one operation: arguments in, declared results out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgevit.runtimes.mil.arithmetic import round_half
from edgevit.runtimes.mil.context import Context, OutOfRange
from edgevit.runtimes.mil.spec import Array, TensorType
from edgevit.runtimes.mil.step import IndicesError, Step, failure
from edgevit.runtimes.mil.values import Value

__all__ = ["LARGE", "execute"]

LARGE = 32_768.0
"""Half of float16's range: values above it in magnitude are named."""


def execute(
    step: Step,
    values: Mapping[str, Value],
    opset: int,
    *,
    half: bool,
    large: dict[str, float] | None = None,
) -> dict[str, Value]:
    """Run one step.

    Args:
        step: What to run.
        values: Value name -> value, for at least the arguments.
        opset: The iOS release of the operator set.
        half: Sums of float16 results are formed in float16.
        large: Where float16 results above ``LARGE`` are recorded.

    Raises:
        IndicesError: An index lies outside of its axis.
        ArtifactError: The arguments are not what MIL allows, or a result is not as declared.
    """
    operation = step.operation
    context = _context(step, values, opset, half)
    try:
        results = step.kernel(context, **_arguments(step, values))
        if not isinstance(results, tuple):
            results = (results,)
        if len(results) != len(operation.outputs):
            raise ValueError(f"{len(results)} results, {len(operation.outputs)} declared")
        return {
            declared.name: _written(np.asarray(result), declared, large)
            for declared, result in zip(operation.outputs, results, strict=True)
        }
    except OutOfRange as e:
        raise IndicesError(failure(operation, str(e)).message) from e
    except (ValueError, IndexError, TypeError, AttributeError, ArithmeticError) as e:
        raise failure(operation, f"{type(e).__name__}: {e}") from e


def _context(step: Step, values: Mapping[str, Value], opset: int, half: bool) -> Context:
    outputs = step.operation.outputs
    return Context(
        half=half and bool(outputs) and outputs[0].dtype == "float16",
        dtypes={
            name: values[names[0]].dtype for name, names in step.arguments.items() if names
        },
        outputs=outputs,
        opset=opset,
    )


def _arguments(step: Step, values: Mapping[str, Value]) -> dict[str, Any]:
    return {
        name: (
            tuple(values[n].data for n in names)
            if name in step.tuples
            else values[names[0]].data
        )
        for name, names in step.arguments.items()
    }


def _written(data: Array, declared: TensorType, large: dict[str, float] | None) -> Value:
    """A result as the program declares it."""
    if not declared.admits(data.shape):
        raise ValueError(
            f"{declared.name!r} has shape {list(data.shape)}, declared is"
            f" {list(declared.shape)}"
        )
    if declared.dtype == "float16":
        wide = data.astype(np.float32, copy=False)
        rounded = round_half(wide)
        if large is not None and data.size:
            _record(declared.name, wide, rounded, large)
        return Value(rounded, declared.dtype)
    return Value(data.astype(declared.dtype, copy=False), declared.dtype)


def _record(name: str, wide: Array, rounded: Array, large: dict[str, float]) -> None:
    peak = float(max(wide.max(), -wide.min()))
    if peak <= LARGE:
        return
    large[name] = peak if np.isfinite(rounded).all() or np.isnan(peak) else float("inf")
