"""Open a bundle and run it with the source model's names, shapes, dtypes and layout."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.bundle import (
    SELFCHECK,
    Entry,
    Manifest,
    TensorInfo,
    open_bundle,
    selfcheck_key,
)
from edgevit.errors import ArtifactError, InputError, UsageError
from edgevit.parity import Figure, Gate, compare, worst_of
from edgevit.preprocess import Preprocess
from edgevit.registry import nearest
from edgevit.runtimes.binding import check_fits
from edgevit.runtimes.chain import Chain
from edgevit.runtimes.engine import Arrays, Closing, Engine
from edgevit.runtimes.heads import Head, parse_head
from edgevit.trust import check_trust

__all__ = ["SelfCheckResult", "Session", "TensorInfo", "load"]

# Engines whose programs hold float16 behind float32 inputs, in all precisions but fp32.
_HALF_INSIDE = frozenset({"coreml"})


@dataclass(frozen=True)
class SelfCheckResult:
    """What this machine computes from the bundled sample, against the source model's output.

    Attributes:
        figures: Worst figure of each gate, over outputs and entries.
        outputs: Output name -> figures, of the entry where they are worst.
    """

    figures: tuple[Figure, ...]
    outputs: Mapping[str, tuple[Figure, ...]]

    @property
    def passed(self) -> bool:
        """Every gate is kept."""
        return all(f.passed for f in self.figures)

    def to_json(self) -> dict[str, Any]:
        """``parity`` over all, ``outputs`` one by one, and ``pass``.

        A self-check replays nothing: ``worst`` is empty and ``first_divergent`` is null.
        """
        return {
            "parity": {f.metric: f.to_json() for f in self.figures},
            "outputs": [
                {"name": name, **{f.metric: f.to_json() for f in figures}}
                for name, figures in self.outputs.items()
            ],
            "worst": [],
            "first_divergent": None,
            "pass": self.passed,
        }


class Session(Closing):
    """An opened bundle; a context manager.

    Attributes:
        manifest: What the bundle says about itself.
        preprocess: How images become the first input; ``None`` if not recorded.
        head: What the first output means; ``None`` if not recorded.
    """

    def __init__(
        self, root: Path, manifest: Manifest, threads: int | None, first: int = 0
    ) -> None:
        self.manifest = manifest
        self.preprocess = _preprocess(manifest)
        self.head = _head(manifest)
        self._root, self._threads = root, threads
        self._chains: dict[int, Chain] = {}
        self._engines: dict[str, Engine] = {}
        self._closed = False
        self._chain(
            first
        )  # a missing engine or a broken artifact shows now, not at the first run

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The source model's inputs: name, shape, dtype, layout (of the first entry)."""
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The source model's outputs (of the first entry)."""
        return self.manifest.outputs

    def run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Run once.

        Args:
            feeds: Input name -> array of exactly the source model's shape and dtype. With
                several entries, the one with these shapes runs.

        Returns:
            Output name -> array in the source model's shape, dtype and layout.

        Raises:
            InputError: A wrong name, shape or dtype, or a value that the artifact's narrower
                dtype cannot hold.
        """
        if self._closed:
            raise InputError("this session is closed", hint="load the bundle again")
        index = pick(self.manifest.entries, feeds)
        if self.manifest.precision != "fp32":
            _check_half(self.manifest.entries[index], feeds)
        return self._chain(index).run(feeds)

    def self_check(self) -> SelfCheckResult:
        """Run the bundled sample of each entry and judge it by the recorded gates.

        Raises:
            ArtifactError: The bundled sample is incomplete.
        """
        gates = [Gate(m, limit) for m, limit in sorted(self.manifest.selfcheck.gates.items())]
        found = {}
        for index, (feeds, expected) in enumerate(read_selfcheck(self._root, self.manifest)):
            outputs = self.run(feeds)
            for name, array in expected.items():
                found[index, name] = compare(array, outputs[name])
        worst: dict[str, tuple[Figure, ...]] = {}
        for name in dict.fromkeys(name for _, name in found):
            every = {str(k): m for k, m in found.items() if k[1] == name}
            worst[name] = tuple(worst_of(every, gate)[1] for gate in gates)
        overall = {str(k): m for k, m in found.items()}
        return SelfCheckResult(tuple(worst_of(overall, g)[1] for g in gates), worst)

    def _chain(self, index: int) -> Chain:
        if index not in self._chains:
            entry = self.manifest.entries[index]
            self._chains[index] = Chain(self._root, entry, self._threads, self._engines)
        return self._chains[index]

    def close(self) -> None:
        """Release the engines."""
        self._closed = True
        for chain in self._chains.values():
            chain.close()
        self._chains = {}


def load(
    path: str | Path,
    *,
    threads: int | None = None,
    trust: bool = False,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Session:
    """Verify a bundle and open it.

    Args:
        path: The ``NAME.edgevit`` directory.
        threads: How many threads an engine may use; ``None`` is the engine's default.
        trust: Whether native code in the bundle may be loaded.
        shapes: Input name -> shape: the entry that is opened at once. By default it is the
            first; the others are opened when they first run.

    Raises:
        InputError: There is no such bundle, or no entry has these shapes.
        ArtifactError: It is corrupt, of an unknown schema, or holds code that is not trusted.
        BackendMissingError: Its engine is not installed; the hint names the extra.
        UsageError: ``threads`` is below 1.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads: expected at least 1, found {threads}")
    manifest = open_bundle(path)
    check_trust(manifest, trust)
    return Session(Path(path), manifest, threads, _entry_of(manifest.entries, shapes or {}))


def _entry_of(entries: tuple[Entry, ...], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The first entry whose inputs have these shapes; inputs that are not named have any."""
    for index, entry in enumerate(entries):
        if all(shapes.get(i.name, i.shape) == i.shape for i in entry.inputs):
            return index
    known = [", ".join(f"{i.name}={i.shape}" for i in e.inputs) for e in entries]
    raise InputError(
        f"no entry of the bundle has the shapes {dict(shapes)}: expected one of {known}"
    )


def _preprocess(manifest: Manifest) -> Preprocess | None:
    if manifest.preprocess is None:
        return None
    try:
        return Preprocess.from_json(manifest.preprocess)
    except UsageError as e:
        raise ArtifactError(f"manifest.json: preprocess: {e.message}") from e


def _head(manifest: Manifest) -> Head | None:
    if manifest.head is None:
        return None
    try:
        return parse_head(manifest.head)
    except UsageError as e:
        raise ArtifactError(f"manifest.json: head: {e.message}") from e


def pick(entries: tuple[Entry, ...], feeds: Mapping[str, Any]) -> int:
    """The index of the entry whose inputs have the shapes of ``feeds``.

    Raises:
        InputError: Names, dtypes or shapes fit no entry.
    """
    _check_names(entries[0].inputs, feeds)
    for info in entries[0].inputs:
        _check_dtype(info, feeds[info.name])
    for index, entry in enumerate(entries):
        if all(feeds[i.name].shape == i.shape for i in entry.inputs):
            return index
    for info in entries[0].inputs:
        known = list(dict.fromkeys(_shape(e, info.name) for e in entries))
        shape = feeds[info.name].shape
        if shape not in known:
            expected = " or ".join(str(s) for s in known)
            raise InputError(f"input {info.name!r}: expected shape {expected}, found {shape}")
    found = ", ".join(f"{i.name}={feeds[i.name].shape}" for i in entries[0].inputs)
    raise InputError(f"no entry of the bundle takes these shapes together: {found}")


def _check_half(entry: Entry, feeds: Mapping[str, Any]) -> None:
    """Programs whose floats are float16 inside take float32, and would say infinity."""
    for part in entry.parts:
        if part.engine not in _HALF_INSIDE:
            continue
        for binding in part.inputs:
            array = feeds.get(binding.name)
            if array is not None and array.dtype.kind == "f":
                check_fits(binding, array, np.dtype(np.float16))


def _shape(entry: Entry, name: str) -> tuple[int, ...]:
    return next(i.shape for i in entry.inputs if i.name == name)


def _check_names(inputs: tuple[TensorInfo, ...], feeds: Mapping[str, Any]) -> None:
    expected = [i.name for i in inputs]
    unknown = [name for name in feeds if name not in expected]
    if unknown:
        raise InputError(
            f"unknown input {unknown[0]!r}: expected {expected}",
            hint=nearest(str(unknown[0]), expected),
        )
    missing = [name for name in expected if name not in feeds]
    if missing:
        raise InputError(f"input {missing[0]!r} is missing: expected {expected}")


def _check_dtype(info: TensorInfo, array: Any) -> None:
    if not isinstance(array, np.ndarray):
        raise InputError(
            f"input {info.name!r}: expected a numpy array, found {type(array).__name__}"
        )
    if array.dtype != np.dtype(info.dtype):
        raise InputError(
            f"input {info.name!r}: expected dtype {info.dtype}, found {array.dtype}",
            hint=f"convert it: array.astype({info.dtype!r})",
        )


def read_selfcheck(root: Path, manifest: Manifest) -> list[tuple[Arrays, Arrays]]:
    """The bundled sample of each entry: (inputs, the source model's outputs), by name.

    Raises:
        ArtifactError: ``selfcheck.npz`` cannot be read or lacks an array.
    """
    try:
        with np.load(root / SELFCHECK, allow_pickle=False) as data:
            arrays = {key: data[key] for key in data.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise ArtifactError(f"{root / SELFCHECK}: cannot be read: {e}") from e
    return [_sample(i, entry, arrays) for i, entry in enumerate(manifest.entries)]


def _sample(index: int, entry: Entry, arrays: Arrays) -> tuple[Arrays, Arrays]:
    return (
        _take(index, "input", entry.inputs, arrays),
        _take(index, "output", entry.outputs, arrays),
    )


def _take(index: int, kind: str, infos: tuple[TensorInfo, ...], arrays: Arrays) -> Arrays:
    found = {}
    names = [i.name for i in infos]
    for info in infos:
        key = selfcheck_key(index, kind, info.name, names)
        if key not in arrays or arrays[key].shape != info.shape:
            raise ArtifactError(
                f"{SELFCHECK}: expected {key!r} of shape {info.shape} for {kind} "
                f"{info.name!r} of entry {index}"
            )
        found[info.name] = arrays[key]
    return found
