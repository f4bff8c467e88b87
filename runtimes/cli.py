"""``edgevit run``: arrays or images through a bundle, outputs as text, JSON and ``.npz``."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.bundle import npz_bytes
from edgevit.errors import InputError
from edgevit.runtimes.heads import Scored, Text
from edgevit.runtimes.messages import without_chatter
from edgevit.runtimes.session import Session, load

__all__ = ["run_bundle"]

Array = np.ndarray[Any, Any]
SHOWN = 8


def run_bundle(
    bundle: Path,
    inputs: Sequence[Path],
    output: Path | None,
    *,
    threads: int | None,
    trust: bool,
) -> tuple[dict[str, Any], str]:
    """Run a bundle on each input file.

    Args:
        bundle: Bundle directory.
        inputs: ``.npz`` (one array per model input), ``.npy`` (the only input), or images
            (through the recorded preprocessing). Each is one run.
        output: Where to write the raw outputs, stacked over the runs, as ``.npz``.
        threads: Threads of the engine.
        trust: Whether artifacts that are code may be loaded.

    Returns:
        The JSON result (``outputs[]``) and the terminal text.

    Raises:
        InputError: A file that cannot be read or does not fit the model's inputs.
    """
    with without_chatter(), load(bundle, threads=threads, trust=trust) as session:
        runs = [(path, session.run(_feeds(session, path))) for path in inputs]
        described = [_describe(session, path, found) for path, found in runs]
    if output is not None:
        _write(output, [found for _, found in runs])
    told = zip(described, runs, strict=True)
    text = "\n".join(_text(d, _first(found)) for d, (_, found) in told)
    return {"outputs": described}, text


def _feeds(session: Session, path: Path) -> Mapping[str, Array]:
    if not path.exists():
        raise InputError(f"input {path} does not exist")
    if path.suffix == ".npz":
        return _load(path)
    if len(session.inputs) != 1:
        names = [i.name for i in session.inputs]
        raise InputError(
            f"{path}: the model has {len(names)} inputs {names}",
            hint="give a .npz with one array per input",
        )
    only = session.inputs[0]
    if path.suffix == ".npy":
        return {only.name: _only_array(path)}
    if session.preprocess is None:
        raise InputError(
            f"{path}: the bundle records no preprocessing, so it cannot take images",
            hint="give a .npy or .npz, or compile with --preprocess",
        )
    return {only.name: session.preprocess.apply(path).astype(only.dtype)}


def _only_array(path: Path) -> Array:
    found = _load(path)
    if list(found) != [""]:
        raise InputError(
            f"{path}: expected one array, found an archive of {sorted(found)}",
            hint="call it .npz to name its arrays after the model's inputs",
        )
    return found[""]


def _load(path: Path) -> dict[str, Array]:
    """Arrays of a file; a ``.npy`` has the single key ``""``."""
    try:
        with path.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return {"": found}
            named = {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise InputError(f"{path}: expected numpy arrays, found: {e}") from e
    for name, array in named.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path}: {name!r} is not an array")
    return named


def _describe(session: Session, path: Path, found: Mapping[str, Array]) -> dict[str, Any]:
    first = _first(found)
    described: dict[str, Any] = {
        "input": str(path),
        "tensors": [
            {"name": n, "dtype": str(a.dtype), "shape": list(a.shape)}
            for n, a in found.items()
        ],
    }
    if session.head is not None:
        described["head"] = session.head.kind
        described["answers"] = [_answer(a) for a in session.head.apply(first)]
    else:
        described["values"] = [_finite(v) for v in first.ravel()[:SHOWN]]
    return described


def _first(found: Mapping[str, Array]) -> Array:
    """The first output, which a head reads and of which some values are shown."""
    return next(iter(found.values()))


def _finite(value: Any) -> float | None:
    """As a number that JSON has; ``None`` for NaN and infinity."""
    number = float(value)
    return number if np.isfinite(number) else None


def _answer(answer: Any) -> Any:
    """A head's answer as plain JSON."""
    if isinstance(answer, Text):
        return {"text": answer.text, "confidence": round(answer.confidence, 4)}
    if isinstance(answer, tuple):
        scored: tuple[Scored, ...] = answer
        return [
            {"index": s.index, "label": s.label, "score": round(s.score, 4)} for s in scored
        ]
    return {"covered": float(np.mean(answer)), "shape": list(answer.shape)}


def _text(described: Mapping[str, Any], first: Array) -> str:
    """For people: unlike JSON, text has NaN and infinity."""
    head = described.get("head")
    if head == "ctc":
        words = "  ".join(
            f"{a['text']!r} ({a['confidence']:.2f})" for a in described["answers"]
        )
        return f"{described['input']}: {words}"
    if head == "topk":
        best = [f"{a['label']} {a['score']:.3f}" for a in described["answers"][0]]
        return f"{described['input']}: " + ", ".join(best)
    if head == "mask":
        return f"{described['input']}: mask covers {described['answers'][0]['covered']:.1%}"
    tensors = ", ".join(f"{t['name']} {t['dtype']} {t['shape']}" for t in described["tensors"])
    values = " ".join(f"{float(v):.5g}" for v in first.ravel()[:SHOWN])
    return f"{described['input']}: {tensors}\n  first values: {values}"


def _write(path: Path, runs: Sequence[Mapping[str, Array]]) -> None:
    """Outputs stacked over the runs; written beside, then renamed."""
    stacked = {name: np.stack([run[name] for run in runs]) for name in runs[0]}
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_bytes(npz_bytes(stacked))
        beside.replace(path)
    except OSError as e:
        raise InputError(f"{path}: cannot be written: {e.strerror}") from e
