"""Lower a whole canonical graph: walk it, place tensors, generate code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import onnx_ir as ir

from edgevit.backend import Lowered, LowerOptions
from edgevit.bundle import Binding, Part
from edgevit.model import dtype_of, shape_of
from edgevit.targets.tvm.codegen import shared_object
from edgevit.targets.tvm.context import Context
from edgevit.targets.tvm.gpu.compiler import ptx
from edgevit.targets.tvm.gpu.device import Gpu
from edgevit.targets.tvm.gpu.source import cuda_source, launches
from edgevit.targets.tvm.machine import Machine
from edgevit.targets.tvm.plan import Placed, document
from edgevit.targets.tvm.program import Program, Tensor
from edgevit.targets.tvm.strides import Held, dense
from edgevit.targets.tvm.tables import OPS, key
from edgevit.targets.tvm.tiles import Tiles, parse_tiles

__all__ = ["emit", "walked"]

PARAMS, PLAN = ".params", ".plan.json"


def _binding(value: ir.Value) -> Binding:
    shape, dtype = shape_of(value), dtype_of(value).name
    name = value.name or ""
    return Binding(name, name, dtype, shape, dtype, shape)


def _dense(ctx: Context, value: ir.Value) -> Held:
    """A new tensor of a value's own that lives for the whole run."""
    shape = shape_of(value)
    tensor = ctx.new(value.name or "", math.prod(shape), dtype_of(value).name, kept=True)
    return Held(tensor, 0, dense(shape))


def _outputs(ctx: Context, graph: ir.Graph) -> list[Placed]:
    """Each graph output in a dense tensor of its own."""
    found = []
    for value in graph.outputs:
        made = _dense(ctx, value)
        ctx.copy_into(made, ctx.read(value), shape_of(value))
        found.append(Placed(_binding(value), made))
    return found


def _values(
    ctx: Context, graph: ir.Graph, inputs: list[Placed], outputs: list[Placed]
) -> Iterator[Placed]:
    """The values that have a place, in execution order; of equal places the first.

    A view of an input is no value of its own: no call makes it.
    """
    seen = {p.held.tensor for p in inputs}
    last = {p.binding.name: p for p in outputs}
    for node in graph:
        for value in node.outputs:
            if value.name in last:
                yield last[value.name]
                continue
            held = ctx.held.get(value)
            if held is None or held.tensor.space == "params" or not _covers(held):
                continue
            if held.tensor not in seen and value.name:
                seen.add(held.tensor)
                yield Placed(_binding(value), held)


def _covers(held: Held) -> bool:
    """Whether a value is all of its tensor: only then feeding it feeds the tensor."""
    size = math.prod(s for axis in held.view.axes for s, stride in axis if stride)
    repeats = any(stride == 0 for axis in held.view.axes for _, stride in axis)
    return size == held.tensor.size and not repeats


def _code(
    program: Program, machine: Machine, offsets: Mapping[Tensor, int], sizes: tuple[int, int]
) -> tuple[bytes, dict[str, Any]]:
    """The code of a program, and what its plan says besides."""
    if not isinstance(machine, Gpu):
        return shared_object(program, machine, offsets, sizes), {}
    calls = [asdict(one) for one in launches(program, machine, offsets)]
    return ptx(cuda_source(program, machine), machine), {"launches": calls}


def walked(
    graph: ir.Graph, machine: Machine, options: LowerOptions
) -> tuple[Context, list[Placed]]:
    """The emission of every node, and the places of the inputs."""
    chosen = parse_tiles(options.tuning, machine, "tuning") if options.tuning else {}
    dynamic = options.precision == "w8a8-dyn"
    ctx = Context(machine, dynamic=dynamic, tiles=Tiles(machine, chosen))
    inputs = []
    for value in graph.inputs:
        held = _dense(ctx, value)
        ctx.define(value, held)
        inputs.append(Placed(_binding(value), held))
    for node in graph:
        if not ctx.done(node):
            OPS[key(node)].lower(ctx, node)
    return ctx, inputs


def emit(model: ir.Model, machine: Machine, options: LowerOptions) -> Lowered:
    """Lower a canonical model; see ``TVMBackend.lower``."""
    graph = model.graph
    ctx, inputs = walked(graph, machine, options)
    outputs = _outputs(ctx, graph)
    values = list(_values(ctx, graph, inputs, outputs))
    kept = [p.held.tensor for p in (*inputs, *outputs)]
    arena, offsets = ctx.program.arena(kept)
    params, places = ctx.program.parameters()
    offsets |= places
    sizes = (arena, len(params))
    code, more = _code(ctx.program, machine, offsets, sizes)
    if ctx.tiles.used:
        more["tiles"] = {n: [t.vectors, t.rows] for n, t in ctx.tiles.used.items()}
    gpu = isinstance(machine, Gpu)
    path = f"{options.stem}{'.ptx' if gpu else '.so'}"
    plan = document(
        ctx.program, machine, inputs, outputs, values, offsets, (*sizes, len(code)), more
    )
    files = {path: code, f"{options.stem}{PARAMS}": params, f"{options.stem}{PLAN}": plan}
    part = Part(
        engine="cuda" if gpu else "tvm",
        artifact=path,
        inputs=tuple(p.binding for p in inputs),
        outputs=tuple(p.binding for p in outputs),
    )
    return Lowered(files, part, tuple(p.binding for p in values))
