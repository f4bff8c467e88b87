"""LiteRT bundles of this machine, run by tflite-runtime 2.14 with NumPy 1.26.

    python -m benchmarks.tflite_runtime [--models NAME ...] [--json FILE]

tflite-runtime ended at 2.14 and many boards have it: artifacts use the lowest operator
versions, and the base package runs on NumPy 1.26. Its environment is `.venv-tflite`
(`make test-tflite-runtime`). Exit code 77: no such environment, a skip and not a pass.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path

from benchmarks.corpus.store import ROOT, CorpusUnavailableError
from benchmarks.device.measure import Device
from benchmarks.device.package import install_base
from benchmarks.device.tables import run

__all__ = ["PYTHON", "device", "main"]

PYTHON = ROOT / ".venv-tflite" / "bin" / "python"


def device(base: Path) -> Device:
    """That environment, with the base package in the folder ``base``.

    Raises:
        CorpusUnavailableError: The environment is not there.
    """
    if not PYTHON.is_file():
        raise CorpusUnavailableError(".venv-tflite", reason="run make test-tflite-runtime")
    install_base(base)
    return Device(platform.machine(), (str(PYTHON),), (base,))


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        what = "Run LiteRT bundles in tflite-runtime 2.14."
        return run(what, lambda: device(Path(name) / "base"), ("litert",))


if __name__ == "__main__":
    sys.exit(main())
