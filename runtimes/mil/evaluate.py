"""Evaluate an ML program with numpy.

Values have their declared dtype. An operator reads its arguments (float16 as the float32
numbers they are), computes and sums in float32, and writes the declared dtype. With
``accumulate="float16"``, operators with a float16 result form their sums in float16, in blocks
(``arithmetic``): the pessimistic bound on what a device may do. Neither is the arithmetic of
a particular accelerator.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgevit.errors import InputError
from edgevit.runtimes.mil.execute import execute
from edgevit.runtimes.mil.feeds import check_feeds
from edgevit.runtimes.mil.prepare import Prepared, prepare
from edgevit.runtimes.mil.spec import Array, Program
from edgevit.runtimes.mil.step import IndicesError, Step
from edgevit.runtimes.mil.values import hold

__all__ = ["Accumulate", "Evaluation", "evaluate", "run"]

Accumulate = Literal["float32", "float16"]


@dataclass(frozen=True)
class Evaluation:
    """What a run gave.

    Attributes:
        outputs: Result name -> array in its declared dtype.
        large: Float16 value name -> largest magnitude before rounding, where that is above
            32,768; ``inf`` if an element overflowed, ``nan`` if one is not a number.
        kept: The intermediates that were asked for, in their declared dtypes.
    """

    outputs: dict[str, Array]
    large: dict[str, float]
    kept: dict[str, Array]


def evaluate(
    program: Program,
    feeds: Mapping[str, Array],
    accumulate: Accumulate = "float32",
    keep: Collection[str] = (),
) -> Evaluation:
    """Run the program's default function once.

    Args:
        program: The program, from ``package.load_package``.
        feeds: Input name -> array; cast to the declared dtype where that is exact.
        accumulate: How operators with a float16 result form sums.
        keep: Names of intermediates to return too.

    Raises:
        ArtifactError: The program holds an operator that is not known, or is inconsistent.
        InputError: The feeds do not fit the function's inputs, or give an index outside of
            its axis.
    """
    return run(prepare(program), feeds, accumulate, keep)


@contextmanager
def _blaming(step: Step, constants: Collection[str]) -> Iterator[None]:
    """A computed index outside of its axis is the inputs' fault, a constant one is not."""
    try:
        yield
    except IndicesError as e:
        if all(name in constants for name in step.arguments["indices"]):
            raise
        raise InputError(f"the inputs give an index that does not exist: {e}") from e


def run(
    prepared: Prepared,
    feeds: Mapping[str, Array],
    accumulate: Accumulate = "float32",
    keep: Collection[str] = (),
) -> Evaluation:
    """Run a prepared function once; see ``evaluate``."""
    function = prepared.function
    checked = check_feeds(function, feeds)
    values = dict(prepared.constants)
    for declared in function.inputs:
        values[declared.name] = hold(checked[declared.name], declared.dtype)
    large: dict[str, float] = {}
    kept: dict[str, Array] = {}
    half = accumulate == "float16"
    with np.errstate(all="ignore"):  # overflow is a result here, and is recorded
        for step in prepared.steps:
            with _blaming(step, prepared.constants.keys()):
                written = execute(step, values, prepared.opset, half=half, large=large)
            values.update(written)
            kept.update({name: v.export() for name, v in written.items() if name in keep})
            for name in step.free:
                del values[name]
    outputs = {name: values[name].export() for name in function.outputs}
    return Evaluation(outputs, large, kept)
