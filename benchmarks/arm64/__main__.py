"""LiteRT, ONNX and native bundles of this machine, run as ARM64 under emulation.

    python -m benchmarks.arm64 [--models NAME ...] [--engines NAME ...] [--json FILE]

The bundles are compiled here; ``edgevit verify`` and ``edgevit run`` of the base package run
in an ARM64 Python under ``qemu-aarch64-static``; the outputs are compared with the source
model's in ONNX Runtime here. Seconds are those of the emulation: they say nothing about a
board. Exit code 77: the root cannot be made here (``make test-arm64`` tells why), which is a
skip and not a pass.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.arm64.root import (
    CPU,
    EMULATOR,
    PYTHON,
    SITE,
    SYSTEM,
    prepare_native,
    prepare_root,
)
from benchmarks.arm64.root import require_tools as require
from benchmarks.device.measure import Device
from benchmarks.device.package import install_base
from benchmarks.device.tables import run

__all__ = ["device", "main"]


def device(base: Path) -> Device:
    """The emulated board, with the base package in the folder ``base``.

    Raises:
        CorpusUnavailableError: It cannot be made here.
    """
    require(install=True)
    folder = prepare_root()
    install_base(base)
    root = folder / SYSTEM
    python = (EMULATOR, "-cpu", CPU, "-L", str(root), str(root / PYTHON))
    return Device("aarch64", python, (base, folder / SITE, prepare_native()))


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        what = "Run bundles as ARM64 under emulation."
        engines = ("litert", "onnx", "tvm", "tvm-w8a8", "tvm-shift-2")
        return run(what, lambda: device(Path(name) / "base"), engines)


if __name__ == "__main__":
    sys.exit(main())
