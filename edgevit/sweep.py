"""``edgevit sweep``: every combination of parameters, spread over a Dask cluster, resumable.

A bundle of the optical target is swept over device parameters, a model over compile options
(``precision``, ``target``, ``passes``). Each finished task is one line of the output file;
a sweep that starts again does what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgevit import registry
from edgevit.bundle import open_bundle
from edgevit.errors import BackendMissingError, EdgevitError, InputError, UsageError
from edgevit.front import front_of, text_of_front
from edgevit.progress import Progress
from edgevit.report import table
from edgevit.simulate import CALIBRATION
from edgevit.studies import grid, labeled, numbers, standard_error

__all__ = ["Sweep", "finished", "run_task", "sweep", "tasks_of", "text_of_sweep"]

_STUDY = "edgevit.targets.optical.study"
COMPILE_AXES = ("target", "precision", "passes")
CHUNK = 64
# With what each line of results begins.
_ROW = b'{"'
# Dask has its workers give memory back at every free of 64 KB, and fault it in again for the
# next array: 252 tasks of benchmarks.optical_sweep took 113 s, and 41 s without. ``None``: as
# the C library does it.
_UNTRIMMED = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}


@dataclass(frozen=True)
class Sweep:
    """What is swept.

    Attributes:
        subject: A bundle directory, or an ONNX file.
        axes: Option name -> values.
        output: File of results, one JSON object a line.
        data: ``.npz`` of labeled samples, for a bundle.
        count: How many of them; ``None`` for all.
        workers: Processes of the local cluster.
        scheduler: Address of a running one; ``None`` starts a local cluster.
        seed: Of the noise.
        setups: Set-ups on which the points of a bundle are costed.
    """

    subject: Path
    axes: Mapping[str, Sequence[str]]
    output: Path
    data: Path | None = None
    count: int | None = None
    workers: int = 2
    scheduler: str | None = None
    seed: int = 0
    setups: tuple[str, ...] = ()


def tasks_of(what: Sweep) -> list[dict[str, Any]]:
    """The tasks in order; each is JSON, and its ``key`` names it.

    Raises:
        InputError: There is no such subject.
        UsageError: Axes that the subject does not have.
    """
    if not what.subject.exists():
        raise InputError(f"{what.subject}: no such bundle or model")
    if what.subject.is_dir():
        return _bundle_tasks(what)
    if what.setups:
        raise UsageError("--setup costs the frames of a bundle, not of a model")
    unknown = [key for key in what.axes if key not in COMPILE_AXES]
    if unknown:
        raise UsageError(
            f"unknown compile option {unknown[0]!r} for a model",
            hint=f"a model is swept over {', '.join(COMPILE_AXES)}; a bundle over its device",
        )
    if "target" not in what.axes:
        raise UsageError("a model is swept over targets", hint="add --grid target=NAME,NAME")
    common = {
        "kind": "compile",
        "subject": str(what.subject.resolve()),
        "content": _content(what.subject),
    }
    return [_keyed({**common, "options": options}) for options in grid(what.axes)]


def _bundle_tasks(what: Sweep) -> list[dict[str, Any]]:
    if what.data is None:
        raise UsageError("a bundle is swept over samples", hint="add --data FILE.npz")
    manifest = open_bundle(what.subject)
    total = len(labeled(what.data, manifest, what.count).samples)
    common = {
        "kind": "simulate",
        "subject": str(what.subject.resolve()),
        "data": str(what.data.resolve()),
        # Results of another bundle or other samples of the same name are not resumed from.
        "content": [manifest.digest, _content(what.data)],
        "total": total,
        "seed": what.seed,
    }
    starts = range(0, total, CHUNK)
    points = grid(numbers(what.axes))
    return [
        _keyed({**common, "point": point, "first": first, "count": min(CHUNK, total - first)})
        for point in points
        for first in starts
    ]


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keyed(task: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(task, sort_keys=True, separators=(",", ":"))
    return {**task, "key": hashlib.sha256(text.encode()).hexdigest()[:24]}


def run_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """Do one task; runs in a worker."""
    kinds = {"simulate": _simulate, "compile": _compile}
    return {"key": task["key"], **kinds[task["kind"]](task)}


def _simulate(task: Mapping[str, Any]) -> dict[str, Any]:
    subject, samples, labels = _opened(task["subject"], task["data"], task["total"])
    load = registry.load_attribute
    point = load(f"{_STUDY}:Point")(**task["point"])
    here = slice(task["first"], task["first"] + task["count"])
    seed = point.seed(task["seed"], task["first"])
    out = load(f"{_STUDY}:evaluate")(subject, samples[here], labels[here], point, seed)
    return {"point": task["point"], "right": out.right, "samples": out.samples}


@lru_cache(maxsize=2)
def _opened(bundle: str, data: str, total: int) -> tuple[Any, Any, Any]:
    """A bundle calibrated on its samples; a worker keeps it from task to task."""
    load = registry.load_attribute
    subject = load(f"{_STUDY}:open_subject")(Path(bundle))
    found = labeled(Path(data), open_bundle(Path(bundle)), total)
    load(f"{_STUDY}:calibrate")(subject, found.samples[:CALIBRATION])
    labels = found.labels or load(f"{_STUDY}:ideal_labels")(subject, found.samples)
    return subject, found.samples, labels


def _compile(task: Mapping[str, Any]) -> dict[str, Any]:
    """Compile without writing a bundle; a refusal is a result too."""
    import tempfile

    compiler = registry.load_attribute("edgevit.api:compile")
    with tempfile.TemporaryDirectory(prefix="edgevit-sweep-") as folder:
        try:
            made = compiler(
                task["subject"],
                output=Path(folder) / "swept.edgevit",
                dry_run=True,
                **task["options"],
            )
        except EdgevitError as e:
            return {"options": task["options"], "refused": e.message}
    keep = ("parity", "coverage", "cost")
    return {"options": task["options"], **{k: made.result[k] for k in keep}}


def sweep(what: Sweep, progress: Progress) -> dict[str, Any]:
    """Do what is missing, then sum up.

    Raises:
        BackendMissingError: Dask is not installed.
        InputError: The output file belongs to something else, or cannot be written; nothing
            answers at the scheduler's address.
        UsageError: A device that is impossible, or a set-up that is not known.
    """
    tasks = tasks_of(what)
    _check(what, tasks)
    done = finished(what.output)
    known = {t["key"] for t in tasks}
    foreign = [key for key in done if key not in known]
    if foreign:
        raise InputError(
            f"{what.output} holds results of another sweep ({len(foreign)} of {len(done)})",
            hint="give another file with -o",
        )
    missing = [t for t in tasks if t["key"] not in done]
    resumed = len(done)
    if missing:
        with progress.step(f"{len(missing)} of {len(tasks)} tasks"), _cluster(what) as client:
            done.update(_collect(client, missing, what.output))
    results = [done[t["key"]] for t in tasks]
    rows = _summed(results) if what.subject.is_dir() else results
    found: dict[str, Any] = {
        "tasks": len(tasks),
        "resumed": resumed,
        "output": str(what.output),
        "rows": rows,
    }
    if what.setups:
        subject, _, _ = _opened(*(tasks[0][k] for k in ("subject", "data", "total")))
        found["front"] = front_of(subject, rows, what.setups)
    return found


def _check(what: Sweep, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Refuse, before a cluster starts, what no task could do."""
    if what.seed < 0:
        raise UsageError(f"seed: expected >= 0, found {what.seed}")
    if what.subject.is_dir():
        load = registry.load_attribute
        for name in what.setups:
            load("edgevit.targets.optical.account:setup_of")(name)
        subject, make = load(f"{_STUDY}:open_subject")(what.subject), load(f"{_STUDY}:Point")
        points = {json.dumps(t["point"], sort_keys=True): t["point"] for t in tasks}
        for fields in points.values():
            load(f"{_STUDY}:product_of")(subject, make(**fields), what.seed)
    try:
        with what.output.open("a", encoding="utf-8"):
            pass
    except OSError as e:
        raise InputError(f"{what.output} cannot be written: {e.strerror}") from e


def _collect(
    client: Any, tasks: Sequence[Mapping[str, Any]], output: Path
) -> dict[str, dict[str, Any]]:
    """Write each result as it comes: what was written is never lost."""
    from distributed import as_completed

    found = {}
    futures = client.map(run_task, tasks, pure=False)
    with output.open("a", encoding="utf-8") as file:
        for future in as_completed(futures):
            row = future.result()
            file.write(json.dumps(row, sort_keys=True) + "\n")
            file.flush()
            found[row["key"]] = row
            future.release()
    return found


@contextmanager
def _cluster(what: Sweep) -> Iterator[Any]:
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as e:
        raise BackendMissingError(
            "sweeps run on Dask, which is not installed",
            hint="pip install 'edgevit[sweep]'",
        ) from e
    if what.scheduler is not None:
        try:
            remote = Client(what.scheduler, timeout=20)
        except (OSError, ValueError) as e:
            raise InputError(
                f"no Dask scheduler answers at {what.scheduler!r}: {e}",
                hint="start one, and give the address that it prints: tcp://HOST:PORT",
            ) from e
        with remote:
            yield remote
        return
    with (
        dask.config.set(_UNTRIMMED),
        LocalCluster(
            n_workers=what.workers,
            threads_per_worker=1,
            dashboard_address=None,
            processes=True,
        ) as local,
        Client(local) as client,
    ):
        yield client


def finished(path: Path) -> dict[str, dict[str, Any]]:
    """Finished tasks; a last line that an interruption cut off is taken away.

    Raises:
        InputError: The file holds something else; it stays as it is.
    """
    if not path.exists():
        return {}
    try:
        held = path.read_bytes()
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}") from e
    *lines, rest = held.split(b"\n")
    found = {row["key"]: row for row in (_row(path, n, s) for n, s in enumerate(lines, 1))}
    if not rest:
        return found
    if not rest.startswith(_ROW) and not _ROW.startswith(rest):
        raise _foreign(path, len(lines) + 1)
    # Appending to half a line would lose the next one too.
    with path.open("r+b") as file:
        file.truncate(len(held) - len(rest))
    return found


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or "key" not in row:
        raise _foreign(path, number)
    return row


def _foreign(path: Path, number: int) -> InputError:
    return InputError(
        f"{path}, line {number}: expected a result of a sweep, found something else; the file "
        "stays as it is",
        hint="give another file with -o",
    )


def _summed(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Chunks of a point together, with the standard error of the share."""
    sums: dict[str, dict[str, Any]] = {}
    for row in results:
        key = json.dumps(row["point"], sort_keys=True)
        total = sums.setdefault(key, {**row["point"], "right": 0, "samples": 0})
        total["right"] += row["right"]
        total["samples"] += row["samples"]
    for total in sums.values():
        total["accuracy"] = total["right"] / total["samples"]
        total["standard_error"] = standard_error(total["right"], total["samples"])
    return list(sums.values())


def text_of_sweep(found: Mapping[str, Any]) -> str:
    """For a terminal."""
    rows = found["rows"]
    lines = [f"{found['tasks']} tasks, {found['resumed']} of them from {found['output']}", ""]
    if rows and "accuracy" in rows[0]:
        axes = [
            k for k in rows[0] if k not in ("right", "samples", "accuracy", "standard_error")
        ]
        cells = [
            (
                *(f"{row[k]:g}" for k in axes),
                f"{row['accuracy']:.4f} +- {row['standard_error']:.4f}",
                str(row["samples"]),
            )
            for row in rows
        ]
        lines.append(table((*axes, "accuracy", "n"), cells))
    else:
        cells = [(json.dumps(r["options"]), _outcome(r)) for r in rows]
        lines.append(table(("options", "outcome"), cells))
    if "front" in found:
        lines = [text_of_front(found["front"]), "", *lines]
    return "\n".join(lines)


def _outcome(row: Mapping[str, Any]) -> str:
    if "refused" in row:
        return f"refused: {row['refused'].splitlines()[0]}"
    figures = row["parity"] or {}
    shown = {
        k: "exact" if v["value"] is None else f"{v['value']:.3g}" for k, v in figures.items()
    }
    return ", ".join(f"{k} {v}" for k, v in shown.items()) + (
        "" if all(v["pass"] for v in figures.values()) else " FAIL"
    )
