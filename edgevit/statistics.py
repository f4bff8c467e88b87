"""Statistics of a model's values over calibration samples: streamed, saved, read again."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.calibration import DataSource
from edgevit.errors import InputError
from edgevit.observers import Observer, TensorStatistics
from edgevit.reference_stream import Arrays, run_stream

__all__ = ["Statistics", "collect", "exposed", "load", "stream"]

logger = logging.getLogger(__name__)
FORMAT = 1


@dataclass(frozen=True)
class Statistics:
    """Statistics by value name.

    Attributes:
        values: Value name -> what was seen of it.
        samples: Digest of the samples.
        synthetic: The samples were made up.
    """

    values: Mapping[str, TensorStatistics]
    samples: str
    synthetic: bool

    def digest(self) -> str:
        """sha256 of all of it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """A ``.npz`` file; ``load`` reads it back."""
        head = {
            "format": FORMAT,
            "samples": self.samples,
            "synthetic": self.synthetic,
            "values": list(self.values),
        }
        arrays: Arrays = {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)}
        for i, seen in enumerate(self.values.values()):
            arrays.update({f"{i}.{k}": np.asarray(v) for k, v in vars(seen).items()})
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        return content.getvalue()

    def save(self, path: Path) -> None:
        """Write ``to_bytes`` beside its place, then rename."""
        beside = path.with_name(path.name + ".part")
        beside.write_bytes(self.to_bytes())
        beside.replace(path)


def load(path: Path) -> Statistics:
    """Read statistics that were saved.

    Raises:
        InputError: It is no such file.
    """
    try:
        # From memory: numpy leaves a file open that is no archive.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as found:
            arrays = {key: found[key] for key in found.files}
        head = json.loads(arrays["head"].tobytes())
        if head["format"] != FORMAT:
            raise ValueError(f"format {head['format']}, expected {FORMAT}")
        values = {name: _seen(arrays, i) for i, name in enumerate(head["values"])}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise InputError(
            f"{path}: expected statistics written by edgevit, found: {e}",
            hint="collect them again from the calibration samples",
        ) from e
    return Statistics(values, head["samples"], head["synthetic"])


def _seen(arrays: Arrays, index: int) -> TensorStatistics:
    given = {f.name: arrays[f"{index}.{f.name}"] for f in fields(TensorStatistics)}
    plain: dict[str, Any] = {k: v.item() if v.ndim == 0 else v for k, v in given.items()}
    return TensorStatistics(**plain)


def exposed(model: ir.Model, values: Sequence[str]) -> bytes:
    """The serialized model with exactly these values as outputs; nothing else is computed.

    Raises:
        KeyError: The graph has no such value (a bug of the caller).
    """
    proto = ir.to_proto(model)
    known = {v.name: v for v in (*proto.graph.value_info, *proto.graph.output)}
    made = {n for node in proto.graph.node for n in node.output}
    del proto.graph.output[:]
    for name in dict.fromkeys(values):
        if name not in made:
            raise KeyError(name)
        info = proto.graph.output.add()
        if name in known:
            info.CopyFrom(known[name])
        info.name = name
    return bytes(proto.SerializeToString())


def stream(
    model: ir.Model, samples: DataSource, values: Sequence[str], threads: int = 0
) -> Iterator[Arrays]:
    """Each sample's arrays of the named values (graph inputs may be among them).

    Args:
        model: Canonical model.
        samples: Of the model's inputs.
        values: Value names.
        threads: Of ONNX Runtime; 0: its own choice.

    Raises:
        InputError: The model does not run on a sample.
    """
    inputs = {str(v.name) for v in model.graph.inputs}
    inner = [v for v in dict.fromkeys(values) if v not in inputs]
    outer = [v for v in dict.fromkeys(values) if v in inputs]
    if not inner:
        for sample in samples:
            yield {n: sample[n] for n in outer}
        return
    seen: list[Mapping[str, np.ndarray[Any, Any]]] = []

    def feed() -> Iterator[Mapping[str, np.ndarray[Any, Any]]]:
        for sample in samples:
            seen.append({n: sample[n] for n in outer})
            yield sample

    for found in run_stream(exposed(model, inner), feed(), threads):
        yield {**found, **seen.pop(0)}


def collect(
    model: ir.Model, samples: DataSource, wanted: Mapping[str, int | None]
) -> Statistics:
    """Observe values over all samples, in memory that does not grow with their number.

    Args:
        model: Canonical model.
        samples: Of the model's inputs.
        wanted: Value name -> channel axis, or ``None``.

    Raises:
        InputError: The model does not run, or there are no samples.
    """
    observers = {name: Observer(axis) for name, axis in wanted.items()}
    count = 0
    for found in stream(model, samples, list(wanted)):
        for name, observer in observers.items():
            observer.update(found[name])
        count += 1
    if count == 0:
        raise InputError("no calibration samples", hint="give more with --calib")
    values = {name: observer.result() for name, observer in observers.items()}
    _warn(values, count)
    return Statistics(values, samples.digest(), samples.synthetic)


def _warn(values: Mapping[str, TensorStatistics], count: int) -> None:
    if count == 1:
        logger.warning("one calibration sample: ranges say little about other inputs")
    broken = [name for name, seen in values.items() if seen.broken]
    if broken:
        logger.warning(
            "%d calibrated values hold NaN or infinity (left out), first %r",
            len(broken),
            broken[0],
        )
    constant = [name for name, seen in values.items() if seen.constant]
    if constant:
        logger.warning(
            "%d calibrated values are constant over all samples, first %r",
            len(constant),
            constant[0],
        )
