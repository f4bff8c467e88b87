"""Cells of the zoo: a model's canonical form, a compile, an accuracy; kept line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.corpus.store import CorpusUnavailableError, sha256
from benchmarks.edgevit_json import call
from benchmarks.five.cases import Setting
from benchmarks.five.cells import compile_cell
from benchmarks.zoo_cases import ZooCase
from benchmarks.zoo_code import code_digest
from benchmarks.zoo_tasks import accuracy

__all__ = ["Record", "Store", "measure_accuracy", "measure_compile", "measure_form"]

_BLOCKS = ("Attention", "LayerNormalization", "GroupNormalization", "Gelu", "Silu")


@dataclass(frozen=True)
class Record:
    """One measured cell.

    Attributes:
        model: Case name.
        what: ``form``, ``compile <setting>`` or ``accuracy <setting>``.
        source: SHA-256 of the model file; empty if there is none.
        error: Why it failed; empty if it passed.
        skipped: Whether the model or the data cannot be had here.
        figures: What was measured.
        code: Digest of the code that measured it, see ``zoo_code``.
    """

    model: str
    what: str
    source: str
    error: str
    skipped: bool
    figures: dict[str, Any]
    code: str = field(default_factory=code_digest)


@dataclass(frozen=True)
class Store:
    """Records as JSON lines, so that an interrupted run goes on where it stopped."""

    path: Path

    def read(self) -> dict[tuple[str, str], Record]:
        """The last record of each cell."""
        return {(r.model, r.what): r for r in self._lines()}

    def _lines(self) -> Iterator[Record]:
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            yield Record(**{"code": "", **json.loads(line)})

    def add(self, record: Record) -> None:
        """Append one record."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(record)) + "\n")


def measure_form(case: ZooCase, timeout_s: float) -> Record:
    """Canonicalize a model and hold it against what is required of it."""
    try:
        path = case.find()
        shapes = [f"{k}={','.join(map(str, v))}" for k, v in case.shapes.items()]
        options = [text for shape in shapes for text in ("--shape", shape)]
        answer = call(["inspect", str(path), *options], timeout_s=timeout_s)
    except CorpusUnavailableError as e:
        return Record(case.name, "form", "", str(e), True, {})
    except RuntimeError as e:
        return Record(case.name, "form", sha256(path), str(e), False, {})
    if answer.error:
        return Record(case.name, "form", sha256(path), answer.error, False, {})
    found = answer.result
    ops = found["canonical_ops"]
    blocks = {op: ops[op] for op in _BLOCKS if op in ops}
    figures = {
        "before": sum(found["ops"].values()),
        "after": sum(ops.values()),
        "blocks": blocks,
        "unknown": found["unknown"],
    }
    return Record(case.name, "form", sha256(path), _misses(case, figures), False, figures)


def _misses(case: ZooCase, figures: dict[str, Any]) -> str:
    lines = [
        f"{figures['blocks'].get(op, 0)} {op}, expected {count}"
        for op, count in case.require.items()
        if figures["blocks"].get(op, 0) != count
    ]
    if case.at_most is not None and figures["after"] > case.at_most:
        lines.append(f"{figures['after']} canonical nodes, expected at most {case.at_most}")
    return "; ".join(lines)


def measure_compile(case: ZooCase, setting: Setting, bundle: Path, timeout_s: float) -> Record:
    """Compile and verify a model for one target."""
    what = f"compile {setting.label}"
    try:
        path = case.find()
        cell = compile_cell(case, setting, bundle, timeout_s)
    except CorpusUnavailableError as e:
        return Record(case.name, what, "", str(e), True, {})
    except RuntimeError as e:
        return Record(case.name, what, sha256(path), str(e), False, {})
    error = "; ".join(cell.misses())
    return Record(case.name, what, sha256(path), error, False, asdict(cell))


def measure_accuracy(
    case: ZooCase, setting: Setting, bundle: Path, samples: int, timeout_s: float
) -> Record:
    """Accuracy of a bundle and of its source on the same garments."""
    what = f"accuracy {setting.label}"
    try:
        path = case.find()
        if not bundle.is_dir():
            return Record(case.name, what, sha256(path), "no bundle", False, {})
        found = accuracy(path, bundle, samples, timeout_s)
    except CorpusUnavailableError as e:
        return Record(case.name, what, "", str(e), True, {})
    except RuntimeError as e:
        return Record(case.name, what, sha256(path), str(e), False, {})
    equal = found.source == found.artifact
    error = "" if equal else f"accuracy {found.artifact}, of the source {found.source}"
    return Record(case.name, what, sha256(path), error, False, asdict(found))
