"""Runs CUDA source of the TVM backend on the processor: its threads become fibers.

The functions are compiled by g++ with a header that stands for CUDA's built-ins. What runs is
the source that nvcc compiles, not the TIR behind it.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.backend import Lowered, LowerOptions
from edgevit.target import load_target
from edgevit.targets.tvm import emit
from edgevit.targets.tvm.lower import TVMBackend

__all__ = ["Emulated", "lower_gpu", "run_gpu"]

Array = np.ndarray[Any, Any]
_HEADER = Path(__file__).with_name("cuda_threads.hpp")
_FIRST = 'extern "C" __global__'
_KERNEL = re.compile(r'extern "C" __global__ void \S+ (\w+)\((.*?)\) \{')


class Emulated:
    """Compiled sources: kernels that run on numpy blocks of memory."""

    def __init__(self, sources: Sequence[str]) -> None:
        """Compile all of them together; ``k0_x`` of the second one becomes ``s1_k0_x``."""
        kernels = [
            re.sub(r"\bk(\d+_)", rf"s{i}_k\1", s[s.index(_FIRST) :])
            for i, s in enumerate(sources)
        ]
        whole = sources[0][: sources[0].index(_FIRST)] + "\n".join(kernels)
        wrapped = [f'#include "{_HEADER}"', whole.replace("__shared__ alignas(64)", _SHARED)]
        for name, parameters in _KERNEL.findall(whole):
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

    def start(self, source: int, one: Mapping[str, Any], blocks: Mapping[str, Array]) -> None:
        """Make one launch of a plan; ``blocks`` are the two blocks of memory."""
        values = [ctypes.c_uint64(blocks[s].ctypes.data + o) for s, o in one["pointers"]]
        pointers = [ctypes.cast(ctypes.byref(v), ctypes.c_void_p) for v in values]
        arguments = (ctypes.c_void_p * len(pointers))(*pointers)
        start = getattr(self._library, f"start_s{source}_{one['kernel']}")
        start(one["blocks"], one["threads"], arguments)


_SHARED = "alignas(64) static"  # a block's memory: blocks run one after the other


def lower_gpu(model: ir.Model) -> Lowered:
    """Lower for a GPU; the artifact is the source, which is not compiled."""
    chosen, backend = load_target("nvidia-gpu"), TVMBackend()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emit, "ptx", lambda source, gpu: source.encode())
        return backend.lower(model, chosen, LowerOptions("fp32", "source", "m"))


def run_gpu(
    jobs: Sequence[tuple[Lowered, Mapping[str, Array]]],
) -> list[dict[str, Array]]:
    """Run what ``lower_gpu`` made; memory is NaN at first."""
    emulated = Emulated([lowered.files["m.ptx"].decode() for lowered, _ in jobs])
    return [_run(emulated, i, lowered, feeds) for i, (lowered, feeds) in enumerate(jobs)]


def _run(
    emulated: Emulated, index: int, lowered: Lowered, feeds: Mapping[str, Array]
) -> dict[str, Array]:
    plan = json.loads(lowered.files["m.plan.json"])
    blocks = {n: _aligned(plan[n]) for n in ("arena", "params")}
    blocks["params"][:] = np.frombuffer(lowered.files["m.params"], np.uint8)
    for entry in plan["inputs"]:
        view = _view(entry, blocks)
        view[...] = feeds[entry["name"]].reshape(view.shape)
    for one in plan["launches"]:
        emulated.start(index, one, blocks)
    shapes = {b.artifact: b.artifact_shape for b in lowered.part.outputs}
    return {
        e["name"]: np.array(_view(e, blocks)).reshape(shapes[e["name"]])
        for e in plan["outputs"]
    }


def _aligned(size: int) -> Array:
    raw = np.full(size + 64, 255, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def _view(entry: Mapping[str, Any], blocks: Mapping[str, Array]) -> Array:
    dtype = np.dtype(entry["dtype"])
    factors = [tuple(f) for axis in entry["axes"] for f in axis]
    reach = 1 + sum((size - 1) * stride for size, stride in factors)
    begin = entry["offset"]
    flat = blocks[entry["block"]][begin : begin + reach * dtype.itemsize].view(dtype)
    strides = [stride * dtype.itemsize for _, stride in factors]
    return np.lib.stride_tricks.as_strided(flat, [size for size, _ in factors], strides)
