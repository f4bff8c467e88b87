"""Run an entry in a child process, so that a crash of a native engine is only an error.

``python -m edgevit.runtimes.child REQUEST_DIR``: reads ``request.json`` and ``in.N.npz``,
writes ``out.N.npz``; an error that edgevit raises on purpose comes back in ``error.json``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevit import errors
from edgevit.bundle import Entry, npz_bytes
from edgevit.errors import EdgevitError, GateError
from edgevit.runtimes.chain import Chain
from edgevit.runtimes.engine import Arrays

__all__ = ["run_isolated"]

_REQUEST, _ERROR = "request.json", "error.json"
_STDERR_LINES = 8
_TAIL_BYTES = 1 << 16


def run_isolated(
    root: Path,
    entry: Entry,
    batches: Sequence[Arrays],
    *,
    threads: int | None = None,
    timeout_s: float = 600.0,
) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Run an entry on each batch, all in one child process.

    Args:
        root: Directory that holds the artifacts.
        entry: What to run; also an entry of one cut artifact (``Entry.of_part``).
        batches: Input name -> array, in the source model's shapes and dtypes.
        threads: Threads of the engine; ``None`` is its default.
        timeout_s: Seconds after which the child is killed.

    Returns:
        Output name -> array for each batch, in order.

    Raises:
        GateError: The child crashed, ran out of time, or failed for another reason.
        ArtifactError: The engine cannot read the artifact.
        BackendMissingError: The engine is not installed.
        InputError: An input does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="edgevit-child-") as name:
        folder = Path(name)
        request = {"root": str(root.resolve()), "entry": entry.to_json(), "threads": threads}
        request["batches"] = len(batches)
        (folder / _REQUEST).write_text(json.dumps(request), encoding="utf-8")
        for i, feeds in enumerate(batches):
            _write(folder / f"in.{i}.npz", feeds, (t.name for t in entry.inputs))
        _execute(folder, timeout_s)
        names = [t.name for t in entry.outputs]
        return [_read(folder / f"out.{i}.npz", names) for i in range(len(batches))]


def _write(path: Path, arrays: Arrays, names: Iterable[str]) -> None:
    """Arrays by position: a tensor's name may hold what a file name cannot."""
    path.write_bytes(npz_bytes({str(i): arrays[n] for i, n in enumerate(names)}))


def _read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(path, allow_pickle=False) as data:
        return {name: data[str(i)] for i, name in enumerate(names)}


def _execute(folder: Path, timeout_s: float) -> None:
    # The child imports what the parent does: the same edgevit, the same plug-ins. -P keeps
    # the working directory out of it.
    command = [sys.executable, "-P", "-m", __name__, str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (folder / "stderr").open("w+b") as stderr:
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as e:
            raise GateError(
                f"the engine did not finish within {timeout_s:g} seconds{_tail(folder)}"
            ) from e
    if (folder / _ERROR).exists():
        raise _rebuild(folder / _ERROR)
    if done.returncode < 0:
        raise GateError(f"the engine crashed: {_signal(-done.returncode)}{_tail(folder)}")
    if done.returncode > 0:
        raise GateError(f"the engine failed with exit {done.returncode}{_tail(folder)}")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tail(folder: Path) -> str:
    with (folder / "stderr").open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return "".join(f"\n  {line}" for line in lines[-_STDERR_LINES:])


def _rebuild(path: Path) -> EdgevitError:
    said = json.loads(path.read_text(encoding="utf-8"))
    kind = getattr(errors, said["kind"], GateError)
    found: EdgevitError = kind(said["message"], hint=said["hint"])
    return found


def _serve(folder: Path) -> None:
    request = json.loads((folder / _REQUEST).read_text(encoding="utf-8"))
    entry = Entry.from_json(request["entry"], _REQUEST)
    names = [t.name for t in entry.inputs]
    with Chain(Path(request["root"]), entry, request["threads"]) as chain:
        for i in range(request["batches"]):
            outputs = chain.run(_read(folder / f"in.{i}.npz", names))
            _write(folder / f"out.{i}.npz", outputs, (t.name for t in entry.outputs))


def main(argv: Sequence[str]) -> int:
    """Serve one request directory."""
    folder = Path(argv[0])
    try:
        _serve(folder)
    except EdgevitError as e:
        said = {"kind": type(e).__name__, "message": e.message, "hint": e.hint}
        (folder / _ERROR).write_text(json.dumps(said), encoding="utf-8")
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
