"""Which schedule a kernel has on a GPU, and the function that it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edgevit.errors import UnsupportedModelError
from edgevit.targets.tvm.gpu.attention import AttentionRows
from edgevit.targets.tvm.gpu.body import Schedule
from edgevit.targets.tvm.gpu.device import Gpu
from edgevit.targets.tvm.gpu.elements import ELEMENTS, Elements
from edgevit.targets.tvm.gpu.lookup import LOOKUPS
from edgevit.targets.tvm.gpu.matrices import BatchedTiles, ConvTiles, GemmTiles
from edgevit.targets.tvm.gpu.rows import NormRows, ReduceElements, SoftmaxRows
from edgevit.targets.tvm.kernels.attention import Attention
from edgevit.targets.tvm.kernels.batched import Batched
from edgevit.targets.tvm.kernels.conv import Conv
from edgevit.targets.tvm.kernels.gemm import Gemm
from edgevit.targets.tvm.kernels.kernel import Kernel
from edgevit.targets.tvm.kernels.reduce import Reduce
from edgevit.targets.tvm.kernels.rows import LayerNorm, RowSoftmax

__all__ = ["function", "schedule"]

_SCHEDULES: Mapping[type, Callable[[Any, Gpu], Schedule]] = {
    Attention: AttentionRows,
    Batched: BatchedTiles,
    Conv: ConvTiles,
    Gemm: GemmTiles,
    LayerNorm: NormRows,
    Reduce: ReduceElements,
    RowSoftmax: SoftmaxRows,
}


def schedule(kernel: Kernel, gpu: Gpu) -> Schedule:
    """How a kernel is shared among threads.

    Raises:
        UnsupportedModelError: Nothing is written for kernels of its class.
    """
    kind = type(kernel)
    if kind in _SCHEDULES:
        return _SCHEDULES[kind](kernel, gpu)
    element = {**ELEMENTS, **LOOKUPS}.get(kind)
    if element is None:
        raise UnsupportedModelError(f"the kernel {kernel.label} has no schedule for a GPU")
    size, write = element
    return Elements(kernel, size(kernel), write)


def function(kernel: Kernel, gpu: Gpu, name: str) -> Any:
    """The TIR function of a kernel as a device runs it: pointers, one an operand."""
    plan = schedule(kernel, gpu)
    with IRBuilder() as builder, T.prim_func():
        T.func_name(name)
        pointers = [T.arg(o.name, T.handle(o.dtype)) for o in kernel.operands]
        buffers = [
            T.decl_buffer((o.size,), o.dtype, data=p, align=4)
            for o, p in zip(kernel.operands, pointers, strict=True)
        ]
        block, thread = T.env_thread("blockIdx.x"), T.env_thread("threadIdx.x")
        with T.launch_thread(block, plan.blocks), T.launch_thread(thread, plan.threads):
            plan.write(buffers, block, thread)
    made = builder.get().with_attr("global_symbol", name).with_attr("target", gpu.target())
    device = 2  # tvm's number for a function that is launched on a device
    made = made.with_attr("calling_conv", device).with_attr("tirx.is_global_func", True)
    return made.with_attr("tirx.noalias", True)  # what a kernel writes, it reads nowhere else
