"""Turn what ``edgevit bench`` is given into subjects: bundles, models, models on engines."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgevit.bench import Subject
from edgevit.bundle import open_bundle
from edgevit.errors import InputError, UsageError
from edgevit.trust import check_trust

__all__ = ["subjects_of"]

# Engine named by --against -> target whose bundle runs on it; "ort" runs the source itself.
_TARGET_OF = {"litert": "linux-x86", "coreml": "iphone-npu", "tvm": "linux-x86:backend=tvm"}


@contextmanager
def subjects_of(
    given: Sequence[str],
    against: Sequence[str],
    shapes: Sequence[Mapping[str, tuple[int, ...]]],
    *,
    trust: bool = False,
) -> Iterator[list[Subject]]:
    """Subjects in order; each model is followed by its bundles for ``against``.

    Several input shapes make a subject each: every entry of a bundle, and a model once for
    each. Symbolic dimensions of a model take ``shapes``, else the shapes of the entries of
    the bundles that are given too.

    Args:
        given: Bundles and ONNX files.
        against: Engines on which each ONNX file runs too.
        shapes: Input name -> shape, one binding or several.
        trust: Whether bundles may hold native code.

    Raises:
        ArtifactError: A bundle holds native code that is not trusted.
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
        if path.is_dir():
            check_trust(open_bundle(path), trust)
    several = _all_shapes(paths, shapes)
    with tempfile.TemporaryDirectory(prefix="edgevit-bench-") as folder:
        found: list[Subject] = []
        for path in paths:
            if path.is_dir():
                found += _each(path.name, path, _entry_shapes(path))
                continue
            found += _each(f"{path.name} (source)", path, several)
            for engine in (e for e in against if e != "ort"):
                found += _lowered(path, engine, Path(folder), several)
        yield found


Shapes = dict[str, tuple[int, ...]]


def _each(label: str, path: Path, several: Sequence[Shapes]) -> list[Subject]:
    """A subject for each input shape; its label names the shape where there are several."""
    found = []
    for shapes in several:
        texts = tuple(f"{n}={','.join(map(str, s))}" for n, s in sorted(shapes.items()))
        named = f"{label} [{' '.join(texts)}]" if len(several) > 1 else label
        found.append(Subject(named, str(path), texts))
    return found


def _entry_shapes(bundle: Path) -> list[Shapes]:
    return [{i.name: i.shape for i in e.inputs} for e in open_bundle(bundle).entries]


def _all_shapes(
    paths: Sequence[Path], given: Sequence[Mapping[str, tuple[int, ...]]]
) -> list[Shapes]:
    """What models are bound to: what was given, over the shapes of the bundles."""
    bundled: list[Shapes] = [{}]
    for path in paths:
        if path.is_dir():
            bundled = _entry_shapes(path)
    several = given if any(given) else bundled
    return [{**bundled[0], **shapes} for shapes in several]


def _lowered(
    path: Path, engine: str, folder: Path, several: Sequence[Shapes]
) -> list[Subject]:
    from edgevit import api

    target = _TARGET_OF[engine]
    bundle = api.compile(
        path,
        target=target,
        shapes=several,
        output=folder / f"{path.stem}-{engine}.edgevit",
        precision="fp32",
        verify=False,
    )
    assert bundle.path is not None
    return _each(f"{path.name} ({engine})", bundle.path, several)
