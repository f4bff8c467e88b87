"""Lower a whole canonical graph: group, plan the layout, emit, bind the boundary."""

from __future__ import annotations

from functools import partial

import onnx_ir as ir

from edgevit.backend import Lowered, LowerOptions
from edgevit.bundle import Binding, Part
from edgevit.model import shape_of
from edgevit.targets.litert.context import Context, Held, permuted
from edgevit.targets.litert.grouping import Group, group_nodes
from edgevit.targets.litert.layout import plan
from edgevit.targets.litert.movement import is_movement, moved
from edgevit.targets.litert.prepare import separated
from edgevit.targets.litert.rules import Perm, channels_last, identity_perm
from edgevit.targets.litert.tables import op_of, rule_of
from edgevit.targets.litert.writer import Writer

__all__ = ["emit"]

_IMAGE_RANK = 4


def _boundary(io: str, value: ir.Value) -> Perm:
    """Order of axes of a graph input or output in the artifact."""
    rank = len(shape_of(value))
    return (
        channels_last(rank) if io == "native" and rank == _IMAGE_RANK else identity_perm(rank)
    )


def _inputs(ctx: Context, graph: ir.Graph, io: str) -> dict[str, int]:
    """Declare the graph inputs."""
    made = {}
    for value in graph.inputs:
        perm = _boundary(io, value)
        shape = permuted(shape_of(value), perm)
        name = value.name or ""
        made[name] = ctx.tensor(name, shape, value)
        ctx.hold(value, made[name], perm)
    return made


def _lower_group(ctx: Context, group: Group) -> None:
    ctx.enter(group)
    source = group.head.inputs[0] if group.head.inputs else None
    if is_movement(group.head) and source is not None and source.const_value is None:
        held = ctx.held(source)
        view = moved(group.head, held.view)
        if view is not None:
            ctx.alias(group.output, Held(held.tensor, view))
            return
    op_of(group).lower(ctx, group)


def _outputs(
    ctx: Context, graph: ir.Graph, io: str
) -> tuple[dict[str, int], tuple[Binding, ...]]:
    """Give each graph output a tensor of its own, in the boundary's order."""
    made: dict[str, int] = {}
    bindings = []
    for value in graph.outputs:
        perm = _boundary(io, value)
        name = value.name or ""
        tensor = ctx.read(value, perm)
        if not _own(ctx, value, tensor, made):
            shape = permuted(shape_of(value), perm)
            copy = ctx.tensor(name, shape, value)
            ctx.copy(tensor, copy)
            tensor = copy
        made[name] = tensor
        ctx.bind(value, tensor, perm)
        bindings.append(ctx.binding(value, tensor, perm))
    return made, tuple(bindings)


def _own(ctx: Context, value: ir.Value, tensor: int, taken: dict[str, int]) -> bool:
    """Whether a tensor was made for this value alone."""
    if value.is_graph_input() or value.const_value is not None:
        return False
    return ctx.writer.name(tensor) == value.name and tensor not in taken.values()


def emit(model: ir.Model, options: LowerOptions) -> Lowered:
    """Lower a canonical model; see ``LiteRTBackend.lower``."""
    model = separated(model)
    graph = model.graph
    groups = group_nodes(graph)
    boundary = partial(_boundary, options.io)
    layout = plan(graph, groups, rule_of, boundary)
    writer = Writer()
    dynamic = options.precision == "w8a8-dyn"
    ctx = Context(writer, layout, boundary, half=options.precision == "fp16", dynamic=dynamic)
    inputs = _inputs(ctx, graph, options.io)
    for group in groups:
        _lower_group(ctx, group)
    outputs, bound = _outputs(ctx, graph, options.io)
    path = f"{options.stem}.tflite"
    data = writer.finish(inputs, outputs, graph.name or "main")
    part = Part(
        engine="litert",
        artifact=path,
        inputs=tuple(
            ctx.binding(v, inputs[v.name or ""], _boundary(options.io, v))
            for v in graph.inputs
        ),
        outputs=bound,
    )
    return Lowered({path: data}, part, tuple(ctx.bindings.values()))
