"""Runs CUDA source of the TVM backend on the processor: its threads become fibers.

The functions are compiled by g++ with a header that stands for CUDA's built-ins. What runs is
the source that nvcc compiles, not the TIR behind it.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.targets.tvm.gpu.source import Launch

__all__ = ["Emulated"]

Array = np.ndarray[Any, Any]
_HEADER = Path(__file__).with_name("cuda_threads.hpp")
_KERNEL = re.compile(r'extern "C" __global__ void \S+ (\w+)\((.*?)\) \{')


class Emulated:
    """Compiled source: kernels that run on numpy blocks of memory."""

    def __init__(self, source: str) -> None:
        source = source.replace("__shared__ alignas(64)", "alignas(64) static")
        wrapped = [f'#include "{_HEADER}"', source]
        for name, parameters in _KERNEL.findall(source):
            types = [p.rpartition(" ")[0] for p in parameters.split(", ")]
            given = ", ".join(f"*({t}*)a[{i}]" for i, t in enumerate(types))
            wrapped.append(f"static void call_{name}(void** a) {{ {name}({given}); }}")
            wrapped.append(
                f'extern "C" void start_{name}(int blocks, int threads, void** a) '
                f"{{ launch(call_{name}, blocks, threads, a); }}"
            )
        with tempfile.TemporaryDirectory() as folder:
            code, out = Path(folder, "code.cpp"), Path(folder, "code.so")
            code.write_text("\n".join(wrapped), encoding="utf-8")
            command = ["g++", "-O1", "-w", "-shared", "-fPIC", "-o", str(out), str(code)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[:1500]
            self._library = ctypes.CDLL(str(out))

    def run(self, launches: Sequence[Launch], blocks: Mapping[str, Array]) -> None:
        """Make launches in order; ``blocks`` are the two blocks of memory."""
        for one in launches:
            values = [ctypes.c_uint64(blocks[s].ctypes.data + o) for s, o in one.pointers]
            pointers = [ctypes.cast(ctypes.byref(v), ctypes.c_void_p) for v in values]
            arguments = (ctypes.c_void_p * len(pointers))(*pointers)
            start = getattr(self._library, f"start_{one.kernel}")
            start(one.blocks, one.threads, arguments)
