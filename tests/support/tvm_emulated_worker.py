"""Runs kernels in an emulated process: ``python tvm_emulated_worker.py FOLDER``."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tvm_ffi


def aligned(content: bytes) -> Any:
    """The bytes as uint8, from a multiple of 64 on."""
    raw = np.zeros(len(content) + 64, np.uint8)
    start = -raw.ctypes.data % 64
    raw[start : start + len(content)] = np.frombuffer(content, np.uint8)
    return raw[start : start + len(content)]


def main(folder: Path) -> None:
    """Call all kernels; the arena comes back as ``after``."""
    found = importlib.util.find_spec("edgevit_tvm_runtime")
    assert found is not None
    assert found.origin is not None
    library = Path(found.origin).with_name("libtvm_runtime.so")
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)  # the thread pool
    arena, params = (aligned((folder / name).read_bytes()) for name in ("arena", "params"))
    steps = json.loads((folder / "steps.json").read_text())
    module: Any = tvm_ffi.load_module(str(folder / "kernels.so"))
    module["run"](tvm_ffi.from_dlpack(arena), tvm_ffi.from_dlpack(params), 0, steps)
    (folder / "after").write_bytes(arena.tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
