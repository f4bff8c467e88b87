"""Seconds and peak memory of a command, measured alike for every quantizer."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus.store import ROOT

__all__ = ["LIMIT_BYTES", "ONE_THREAD", "Timed", "timed"]

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
# Address space of a quantizer: one that needs more ends with an error, not with the machine.
LIMIT_BYTES = 16 << 30
_INTERVAL_S = 0.05


@dataclass(frozen=True)
class Timed:
    """One command.

    Attributes:
        status: Exit status; negative: the signal that ended it.
        output: What it wrote to stdout.
        errors: What it wrote to stderr.
        seconds: From start to end, interpreter and imports included.
        cpu_s: Processor seconds of it and its children; other load hardly changes them.
        peak_mb: The largest sum of resident memory over the process tree, sampled.
    """

    status: int
    output: str
    errors: str
    seconds: float
    cpu_s: float
    peak_mb: float


def timed(command: list[str], folder: Path, timeout_s: float) -> Timed:
    """Run a command in the repository's root; its two streams go through files in ``folder``.

    Raises:
        TimeoutError: It ran longer than ``timeout_s``; it and its children were killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    out, err = folder / "stdout", folder / "stderr"
    start, used, peak = time.perf_counter(), _cpu_of_children(), 0
    with (
        out.open("wb") as stdout,
        err.open("wb") as stderr,
        subprocess.Popen(
            ["prlimit", f"--as={LIMIT_BYTES}", *command],
            stdout=stdout,
            stderr=stderr,
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,
        ) as child,
    ):
        while child.poll() is None:
            peak = max(peak, _resident(child.pid))
            time.sleep(_INTERVAL_S)
            if time.perf_counter() - start > timeout_s:
                os.killpg(child.pid, signal.SIGKILL)
                raise TimeoutError(f"not done after {timeout_s:.0f} s")
        seconds = time.perf_counter() - start
    said = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
    cpu_s = _cpu_of_children() - used
    return Timed(child.returncode, said[0], said[1], seconds, cpu_s, peak / 1e6)


def _cpu_of_children() -> float:
    """Processor seconds of all ended children; one command runs at a time."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _resident(pid: int) -> int:
    """Resident bytes of a process and its descendants, from Linux's /proc; 0 once gone."""
    proc = Path("/proc") / str(pid)
    try:
        pages = int((proc / "statm").read_text().split()[1])
        threads = list((proc / "task").iterdir())
        children = [c for t in threads for c in (t / "children").read_text().split()]
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize() + sum(_resident(int(c)) for c in children)
