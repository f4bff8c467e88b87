"""The samples of a compile: for calibration, for verification, and for the self-check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from edgevit.bundle import TensorInfo
from edgevit.calibration import (
    DataSource,
    SampleShapeError,
    SyntheticSource,
    held_out,
    open_source,
)
from edgevit.errors import InputError
from edgevit.loading import Source
from edgevit.model import dtype_of, shape_of
from edgevit.plan import Plan
from edgevit.reference import Arrays
from edgevit.samplecheck import check_samples

__all__ = ["Data", "data", "samples", "tensor_infos"]

SYNTHETIC_SAMPLES = 4


@dataclass(frozen=True)
class Data:
    """Samples of a compile.

    Attributes:
        calibration: Samples for calibrated passes; ``None`` if none were given.
        samples: Verification samples, at least one.
        digest: sha256 of the verification samples.
        synthetic: The verification samples were made up.
        selfcheck: One sample that ships with the bundle.
        warnings: What is odd about the calibration samples.
    """

    calibration: DataSource | None
    samples: tuple[Arrays, ...]
    digest: str
    synthetic: bool
    selfcheck: Arrays
    warnings: tuple[str, ...] = ()


def tensor_infos(values: Sequence[ir.Value]) -> tuple[TensorInfo, ...]:
    """A model's inputs or outputs, with static shapes."""
    return tuple(
        TensorInfo(name=str(v.name), dtype=str(dtype_of(v)), shape=shape_of(v)) for v in values
    )


def samples(
    p: Plan,
    sources: Sequence[Source],
    calibration: str | None,
    inputs: str | None,
    selfcheck_input: str | None,
) -> list[Data]:
    """The data of every entry. What was given feeds the entries whose shapes it has.

    Where an entry has another shape it gets synthetic samples, and its figures say so.

    Raises:
        SampleShapeError: What was given fits no entry.
    """
    if len(sources) == 1:
        return [data(p, sources[0], calibration, inputs, selfcheck_input)]
    given = [calibration, inputs, selfcheck_input]
    fits = [[_fits(p, source, where) for where in given] for source in sources]
    for where, column in zip(given, zip(*fits, strict=True), strict=True):
        if where is not None and not any(column):
            tuple(open_source(where, *_opening(p, sources[0])))  # raises, saying why
    return [
        data(p, source, *(w if ok else None for w, ok in zip(given, row, strict=True)))
        for source, row in zip(sources, fits, strict=True)
    ]


def _opening(p: Plan, source: Source) -> tuple[Any, Any, int]:
    return tensor_infos(source.model.graph.inputs), p.preprocess, p.recipe.seed


def _fits(p: Plan, source: Source, where: str | None) -> bool:
    """Whether the samples at ``where`` have the shapes of this entry."""
    if where is None:
        return False
    try:
        next(iter(open_source(where, *_opening(p, source))), None)
    except SampleShapeError:
        return False
    return True


def data(
    p: Plan,
    source: Source,
    calibration: str | None,
    inputs: str | None,
    selfcheck_input: str | None,
) -> Data:
    """Choose verification data: ``--inputs``, else held-out calibration, else synthetic."""
    infos = tensor_infos(source.model.graph.inputs)
    seed = p.recipe.seed
    given = open_source(calibration, infos, p.preprocess, seed) if calibration else None
    synthetic = SyntheticSource(infos, SYNTHETIC_SAMPLES, seed, p.preprocess)
    chosen: DataSource = synthetic
    if inputs is not None:
        chosen = open_source(inputs, infos, p.preprocess, seed)
    elif given is not None and not given.synthetic:
        given, chosen = held_out(given)
    selfcheck = next(iter(synthetic))
    if selfcheck_input is not None:
        selfcheck = next(iter(open_source(selfcheck_input, infos, p.preprocess, seed)))
    found = tuple(chosen)
    if not found:
        raise _nothing_to_verify_on(calibration if inputs is None else None)
    _check_finite(found)
    odd: tuple[str, ...] = ()
    if given is not None and not given.synthetic:
        odd = check_samples(source.model, given, p.preprocess)
    return Data(given, found, chosen.digest(), chosen.synthetic, selfcheck, odd)


def _nothing_to_verify_on(calibration: str | None) -> InputError:
    if calibration is None:
        return InputError("no verification samples: the source of --inputs is empty")
    return InputError(
        f"--calib {calibration}: expected at least two samples, found one: the last fifth, "
        "at least one, is kept out of calibration to verify on",
        hint="give more samples, or others to verify on with --inputs",
    )


def _check_finite(found: Sequence[Arrays]) -> None:
    import numpy as np

    for i, sample in enumerate(found):
        for name, array in sample.items():
            if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
                raise InputError(f"sample {i}: input {name!r} has NaN or infinity")
