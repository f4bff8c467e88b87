"""CUDA source of a program's kernels, and the launches that make its calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgevit.errors import InternalError
from edgevit.targets.tvm.gpu.device import Gpu
from edgevit.targets.tvm.program import Program, Tensor

__all__ = ["Launch", "cuda_source", "launches"]

# What TVM's own header is needed for here; the rest of it wants a toolkit's headers. CUDA's
# max and min drop NaN; ours hand on the second operand, as the code for processors does.
_PRELUDE = """#ifdef __CUDACC_RTC__
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <cstdint>
#endif
#define CUDART_INF_F __int_as_float(0x7f800000)
#define CUDART_NAN_F __int_as_float(0x7fffffff)
template <class T> __device__ __forceinline__ T largest(T a, T b) { return a > b ? a : b; }
template <class T> __device__ __forceinline__ T smallest(T a, T b) { return a < b ? a : b; }
#define max largest
#define min smallest
#define uint unsigned int
#define uchar unsigned char
#define ushort unsigned short
"""
_FIRST = 'extern "C" __global__'


@dataclass(frozen=True)
class Launch:
    """A call of a kernel on a device.

    Attributes:
        kernel: Name of the function.
        blocks: Of the launch.
        threads: Of each block.
        pointers: Block of memory (``arena`` or ``params``) and byte offset of each operand.
    """

    kernel: str
    blocks: int
    threads: int
    pointers: tuple[tuple[str, int], ...]


def _names(program: Program) -> dict[Any, str]:
    """A function's name for each kernel that differs from the ones before."""
    names: dict[Any, str] = {}
    for step in program.steps:
        names.setdefault(step.kernel, f"k{len(names)}_{step.kernel.label}")
    return names


def launches(program: Program, gpu: Gpu, offsets: Mapping[Tensor, int]) -> tuple[Launch, ...]:
    """The launches of all steps, in order.

    Raises:
        UnsupportedModelError: A kernel has no schedule for a GPU.
    """
    from edgevit.targets.tvm.gpu.schedules import schedule

    names = _names(program)
    found = []
    for step in program.steps:
        plan = schedule(step.kernel, gpu)
        pointers = tuple(
            (
                r.tensor.space,
                offsets[r.tensor] + r.offset * (r.tensor.nbytes // r.tensor.size),
            )
            for r in step.refs
        )
        found.append(Launch(names[step.kernel], plan.blocks, plan.threads, pointers))
    return tuple(found)


def cuda_source(program: Program, gpu: Gpu) -> str:
    """CUDA C++ of all kernels; needs no header of a toolkit.

    Raises:
        InternalError: Code generation fails.
    """
    import tvm
    from tvm.ir import GlobalVar

    from edgevit.targets.tvm.gpu.schedules import function

    names = _names(program)
    functions = {GlobalVar(n): function(k, gpu, n) for k, n in names.items()}
    try:
        with tvm.transform.PassContext(opt_level=3):
            lowered = _lowered(tvm.IRModule(functions))
        module = tvm.get_global_func("target.build.cuda")(lowered, gpu.target())
        text = module.inspect_source("cuda")
    except Exception as e:
        raise InternalError(f"TVM cannot generate CUDA code: {e}") from e
    return _PRELUDE + str(text[text.index(_FIRST) :])


def _lowered(module: Any) -> Any:
    """Plain statements: flat buffers, vectors, no loops that are to be written out."""
    from tvm.ir.transform import Sequential
    from tvm.tirx import transform

    return Sequential(
        [
            transform.StmtSimplify(),
            transform.FlattenBuffer(),
            transform.NarrowDataType(32),
            transform.VectorizeLoop(True),
            transform.UnrollLoop(),
            transform.StmtSimplify(),
            transform.LowerIntrin(),
        ]
    )(module)
