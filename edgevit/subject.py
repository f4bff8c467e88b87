"""What is verified against what, and what the source model computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit import registry
from edgevit.backend import Lowered, LowerOptions
from edgevit.bundle import Entry
from edgevit.model import shape_of
from edgevit.parity import Gate
from edgevit.quantizers import dequantizer, quantizer_of
from edgevit.reference import Arrays, run_reference
from edgevit.target import load_target

__all__ = ["Expected", "LoweredPart", "Runner", "Subject", "expect"]

Runner = Callable[[Path, Entry, Sequence[Mapping[str, Any]]], Sequence[Arrays]]


@dataclass(frozen=True)
class LoweredPart:
    """A lowered part, the backend that made it, and its region of the canonical graph."""

    backend: str
    lowered: Lowered


@dataclass(frozen=True)
class Subject:
    """What is verified against what.

    Attributes:
        source: Serialized source model, as the user gave it.
        canonical: Canonical model that was lowered.
        parts: Lowered parts in execution order.
        entry: The bundle's entry that runs them.
        root: Directory that holds the staged files.
        precision: Decides the roundoffs of the replay.
        gates: Whole-network gates.
        run: Runs an entry in a child process.
        exact: The graph before the first pass that rounds; ``None`` if no pass does.
    """

    source: bytes
    canonical: ir.Model
    parts: tuple[LoweredPart, ...]
    entry: Entry
    root: Path
    precision: str
    gates: tuple[Gate, ...]
    run: Runner
    exact: ir.Model | None = None


@dataclass(frozen=True)
class Expected:
    """What the source model computes.

    Attributes:
        outputs: For each sample, output name -> array.
        values: For the first sample, every value of the canonical graph by name: as the
            source computes it where the source has it, else as the canonical graph computes
            it from those.
        rewritten: The values that the source has, as the canonical graph computes each from
            the source's own ones: what proves the rewrites.
        version: ONNX Runtime's version.
        exact: The same of the graph before the first pass that rounds.
    """

    outputs: tuple[Arrays, ...]
    values: Arrays
    rewritten: Arrays
    version: str
    exact: Expected | None = None


def expect(
    source: bytes | Path,
    canonical: ir.Model,
    samples: Sequence[Arrays],
    trace: bool,
    exact: ir.Model | None = None,
) -> Expected:
    """Run the source model (and, to trace, the canonical one) in ONNX Runtime.

    Args:
        source: Serialized source model, or its file.
        canonical: The model that is lowered.
        samples: Input name -> array, at least one.
        trace: Whether ``values`` is wanted.
        exact: The graph before the first pass that rounds, if one does.

    Raises:
        InputError: The source model does not run.
    """
    reference = run_reference(source, samples, trace=1 if trace else 0)
    if not trace:
        return Expected(reference.outputs, {}, {}, reference.version)
    before = None
    if exact is not None:
        made = _canonical_values(exact, reference.traces[0], samples[0])
        before = Expected(reference.outputs, *made, reference.version)
    values, rewritten = _canonical_values(canonical, reference.traces[0], samples[0])
    return Expected(reference.outputs, values, rewritten, reference.version, before)


def _canonical_values(
    canonical: ir.Model, trace: Arrays, sample: Arrays
) -> tuple[Arrays, Arrays]:
    """Cut the canonical graph at every value of the source, and run it on those values.

    Returns:
        Every canonical value, and the source's values recomputed.
    """
    backend = registry.load("backends", "onnx")()
    whole = backend.lower(canonical, load_target("onnx"), LowerOptions("fp32", "source", "m"))
    known = {}
    for b in whole.values:
        if b.name in trace and trace[b.name].size == np.prod(b.shape, dtype=np.int64):
            known[b.name] = trace[b.name].reshape(b.shape)
    known.update(_behind_views(canonical, known))
    known.update(_on_grid(canonical, known))
    shared = tuple(b for b in whole.values if b.name in known)
    cut = backend.replay(replace(whole, values=shared))
    feeds = {b.artifact: {**known, **sample}[b.name] for b in cut.part.inputs}
    computed = run_reference(
        cut.files[cut.part.artifact], [feeds], trace=1, what="canonical"
    ).traces[0]
    rewritten = {b.name: computed[b.artifact] for b in cut.values}
    return {**computed, **sample, **known}, rewritten


def _on_grid(canonical: ir.Model, known: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    """The source's numbers as codes hold them, where the graph dequantizes codes to them.

    Readers of such a value get numbers of the grid, whether they are fed by an engine that
    keeps the codes or by one that keeps the numbers.
    """
    found: dict[str, np.ndarray[Any, Any]] = {}
    for node in canonical.graph:
        name = str(node.outputs[0].name)
        grid = quantizer_of(node) if name in known and dequantizer(node.outputs[0]) else None
        if grid is not None and grid.axis is None:
            info = np.iinfo(grid.dtype.numpy())
            quotient = np.rint(known[name] / grid.scale) + grid.zero_point
            codes = np.clip(quotient, info.min, info.max) - grid.zero_point
            found[name] = (codes * grid.scale).astype(known[name].dtype)
    return found


def _behind_views(canonical: ir.Model, known: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    """Values that the source lacks, but of which it has a reshape or transpose: that undone.

    Otherwise the value is what the canonical graph computes, its view what the source does,
    and a faultless view would differ from its own operand by the rounding of a rewrite.
    """
    found: dict[str, np.ndarray[Any, Any]] = {}
    for node in reversed(list(canonical.graph)):
        x, out = node.inputs[0] if node.inputs else None, str(node.outputs[0].name)
        if x is None or x.producer() is None or node.op_type not in ("Reshape", "Transpose"):
            continue
        array = known[out] if out in known else found.get(out)
        if array is None or str(x.name) in known:
            continue
        if node.op_type == "Transpose":
            perm = [int(axis) for axis in node.attributes["perm"].as_ints()]
            found[str(x.name)] = array.transpose(np.argsort(perm))
        else:
            found[str(x.name)] = array.reshape(shape_of(x))
    return found
