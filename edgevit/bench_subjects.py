"""Turn what ``edgevit bench`` is given into subjects: bundles, models, models on engines."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgevit.bench import Subject
from edgevit.bundle import open_bundle
from edgevit.errors import InputError, UsageError

__all__ = ["subjects_of"]

# Engine named by --against -> target whose bundle runs on it; "ort" runs the source itself.
_TARGET_OF = {"litert": "linux-x86", "coreml": "iphone-npu"}


@contextmanager
def subjects_of(
    given: Sequence[str], against: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[list[Subject]]:
    """Subjects in order; each model is followed by its bundles for ``against``.

    Symbolic dimensions of a model take ``shapes``, else the shapes of a bundle given too.

    Raises:
        UsageError: An engine that cannot be benchmarked.
        InputError: A path that does not exist.
    """
    for engine in against:
        if engine != "ort" and engine not in _TARGET_OF:
            known = ", ".join(["ort", *_TARGET_OF])
            raise UsageError(f"--against: unknown engine {engine!r}", hint=f"known: {known}")
    paths = [Path(text) for text in given]
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such bundle or model")
    merged = {**_bundle_shapes(paths), **shapes}
    texts = tuple(f"{n}={','.join(str(d) for d in s)}" for n, s in sorted(merged.items()))
    with tempfile.TemporaryDirectory(prefix="edgevit-bench-") as folder:
        found: list[Subject] = []
        for path in paths:
            if path.is_dir():
                found.append(Subject(path.name, str(path)))
                continue
            found.append(Subject(f"{path.name} (source)", str(path), texts))
            for engine in against:
                if engine != "ort":
                    found.append(_lowered(path, engine, Path(folder), shapes))
        yield found


def _bundle_shapes(paths: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        if path.is_dir():
            for info in open_bundle(path).inputs:
                shapes[info.name] = info.shape
    return shapes


def _lowered(
    path: Path, engine: str, folder: Path, shapes: Mapping[str, tuple[int, ...]]
) -> Subject:
    from edgevit import api

    target = _TARGET_OF[engine]
    bundle = api.compile(
        path,
        target=target,
        shapes=dict(shapes),
        output=folder / f"{path.stem}-{engine}.edgevit",
        precision="fp32",
        verify=False,
    )
    return Subject(f"{path.name} ({engine})", str(bundle.path))
