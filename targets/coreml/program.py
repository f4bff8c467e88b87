"""A canonical graph as a MIL program, built operation by operation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from edgevit.bundle import Binding
from edgevit.errors import InternalError
from edgevit.model import dtype_of, shape_of
from edgevit.targets.coreml.ane import Walk
from edgevit.targets.coreml.arranged import Arranged
from edgevit.targets.coreml.context import Context
from edgevit.targets.coreml.groups import plan
from edgevit.targets.coreml.layouts import Layout
from edgevit.targets.coreml.names import Names
from edgevit.targets.coreml.rule import i32
from edgevit.targets.coreml.table import RULES, key

__all__ = ["Built", "Form", "build"]


@dataclass(frozen=True)
class Form:
    """What a program is like.

    Attributes:
        dtype: float16 or float32 for all floats inside.
        io: Whether floats at the boundary keep the source's dtype or take ``dtype``.
        system: The iOS release whose operators it uses.
        layout: ``"ane"``: channels second, linear layers as convolutions, attention head by
            head; ``"plain"``: the model's own order of axes.
    """

    dtype: np.dtype[Any]
    io: Literal["source", "native"]
    system: int
    layout: str


@dataclass(frozen=True)
class Built:
    """A program in memory.

    Attributes:
        program: The ``coremltools`` MIL program, one function ``main``.
        inputs: Bindings of the model's inputs.
        outputs: Bindings of the model's outputs.
        values: Bindings of every source value that a tensor of the program holds.
    """

    program: Any
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    values: tuple[Binding, ...]


def _boundary_dtype(value: ir.Value, program: np.dtype[Any], io: str) -> np.dtype[Any]:
    """Dtype of a model input or output: Core ML has float16, float32 and int32 there."""
    dtype = dtype_of(value)
    if not np.issubdtype(dtype, np.floating):
        return np.dtype(np.int32)
    return program if io == "native" else dtype


def _binding(
    value: ir.Value, artifact: str, dtype: np.dtype[Any], layout: Layout | None = None
) -> Binding:
    shape = shape_of(value)
    held = (shape or (1,)) if layout is None else layout.shape(shape)
    return Binding(
        name=str(value.name),
        artifact=artifact,
        dtype=dtype_of(value).name,
        shape=shape,
        artifact_dtype=dtype.name,
        artifact_shape=held,
        perm=_perm(layout),
    )


def _perm(layout: Layout | None) -> tuple[int, ...] | None:
    moved = layout is not None and layout.perm != tuple(range(layout.rank))
    return layout.perm if layout is not None and moved else None


def _internal_dtype(value: ir.Value, program: np.dtype[Any]) -> np.dtype[Any]:
    dtype = dtype_of(value)
    if np.issubdtype(dtype, np.floating):
        return program
    return dtype if dtype == np.bool_ else np.dtype(np.int32)


def _mil_name(dtype: np.dtype[Any]) -> str:
    return {"float16": "fp16", "float32": "fp32", "int32": "int32", "bool": "bool"}[dtype.name]


def _enter(ctx: Context, binding: Binding, value: ir.Value, var: Any) -> None:
    """Bring a model input into the program's dtype."""
    wanted = _internal_dtype(value, ctx.dtype)
    if binding.artifact_dtype == wanted.name:
        if not value.uses():
            # Core ML drops an input that no operation reads; coremltools adds this too.
            ctx.temp(value, "unused", "identity", x=var)
        ctx.bind(value, var)
        return
    if wanted == np.bool_:
        inside = ctx.temp(value, "bool", "not_equal", x=var, y=i32(0))
    else:
        inside = ctx.temp(value, wanted.name, "cast", x=var, dtype=_mil_name(wanted))
    ctx.bind(value, inside)


def _leave(ctx: Context, binding: Binding, value: ir.Value) -> Any:
    """The variable that the function returns for a model output, under its own name."""
    var = ctx.get(value)
    inside = _internal_dtype(value, ctx.dtype)
    if binding.artifact_dtype != inside.name:
        name = _mil_name(np.dtype(binding.artifact_dtype))
        return ctx.mb.cast(x=var, dtype=name, name=binding.artifact)
    if var.name == binding.artifact:
        return var
    if tuple(var.shape) == ():
        return ctx.mb.reshape(x=var, shape=i32([1]), name=binding.artifact)
    return ctx.mb.identity(x=var, name=binding.artifact)


def _plain_walk(graph: ir.Graph) -> Callable[[Context, ir.Node], None]:
    groups = plan(graph)

    def lower(ctx: Context, node: ir.Node) -> None:
        group = groups.by_last.get(node)
        if group is not None:
            group.lower(ctx)
        elif node not in groups.swallowed:
            RULES[key(node)].lower(ctx, node)

    return lower


def _lower_nodes(ctx: Context, graph: ir.Graph) -> None:
    lower: Callable[[ir.Node], None]
    if isinstance(ctx, Arranged):
        lower = partial(Walk(graph).lower, ctx)
    else:
        lower = partial(_plain_walk(graph), ctx)
    for node in graph:
        try:
            lower(node)
        except (ValueError, TypeError, IndexError) as e:
            raise InternalError(
                f"node {node.name!r} ({node.op_type}) passed the operator table, but the MIL "
                f"builder refuses it: {e}"
            ) from e


def _rename_defaults(function: Any, ctx: Context) -> None:
    """Constants that the builder adds itself get names that no other tensor has."""
    names, ours = ctx.names, ctx.constants()
    for operation in function.operations:
        if operation.op_type != "const" or operation.outputs[0] in ours:
            continue
        name = names.claim(operation.outputs[0].name)
        operation.name = name
        operation.outputs[0].name = name


def _values(
    ctx: Context, graph: ir.Graph, outputs: tuple[Binding, ...]
) -> tuple[Binding, ...]:
    """Source values that the program holds, in execution order; no alias.

    Core ML functions take and give no bool and no int8: of those, the ones that leave the
    model are mapped as the int32 tensor that leaves.
    """
    leaving = {b.name: b for b in outputs if b.dtype == "bool"}
    seen = {ctx.values[str(v.name)].name for v in graph.inputs}
    found = []
    for out in (out for node in graph for out in node.outputs):
        var = ctx.values.get(str(out.name))
        if str(out.name) in leaving:
            found.append(leaving[str(out.name)])
        if var is None or var.name in seen or dtype_of(out).itemsize == 1:
            continue
        if var.op is None or var.op.op_type.startswith("const"):
            continue
        seen.add(var.name)
        layout = ctx.layouts.get(str(out.name)) if isinstance(ctx, Arranged) else None
        found.append(_binding(out, var.name, _internal_dtype(out, ctx.dtype), layout))
    return tuple(found)


def build(mb: Any, model: ir.Model, form: Form, opset: Any) -> Built:
    """Build the program of a canonical model.

    Args:
        mb: The MIL builder, with a fresh name counter.
        model: Canonical model, every node supported.
        form: What the program is like.
        opset: Deployment target, e.g. ``ct.target.iOS17``.
    """
    graph, names, dtype = model.graph, Names(), form.dtype

    def bound(value: ir.Value) -> Binding:
        artifact = names.claim(str(value.name))
        return _binding(value, artifact, _boundary_dtype(value, dtype, form.io))

    inputs = tuple(bound(v) for v in graph.inputs)
    outputs = tuple(bound(v) for v in graph.outputs)
    external = frozenset(
        b.name
        for b, v in zip(outputs, graph.outputs, strict=True)
        if b.artifact_dtype != _internal_dtype(v, dtype).name
    )
    kind = Arranged if form.layout == "ane" else Context
    written = {b.name: b.artifact for b in outputs}
    ctx = kind(mb, dtype, names, form.system, external, outputs=written)
    program = _program(ctx, graph, inputs, outputs, opset)
    return Built(program, inputs, outputs, _values(ctx, graph, outputs))


def _program(
    ctx: Context,
    graph: ir.Graph,
    inputs: tuple[Binding, ...],
    outputs: tuple[Binding, ...],
    opset: Any,
) -> Any:
    from coremltools.converters.mil.mil import Function, Program, types

    def placeholder(binding: Binding) -> Any:
        kind = np.dtype(binding.artifact_dtype).type
        dtype = types.numpy_type_to_builtin_type(kind)
        return ctx.mb.placeholder(binding.artifact_shape, dtype=dtype)

    declared = OrderedDict((b.artifact, placeholder(b)) for b in inputs)
    with Function(declared, opset_version=opset) as function:
        for b, v in zip(inputs, graph.inputs, strict=True):
            _enter(ctx, b, v, function.inputs[b.artifact])
        _lower_nodes(ctx, graph)
        ends = [_leave(ctx, b, v) for b, v in zip(outputs, graph.outputs, strict=True)]
        function.set_outputs(ends)
    _rename_defaults(function, ctx)
    program = Program()
    program.add_function("main", function)
    return program
