"""From a canonical model to an artifact: layers to frames, the rest to ONNX parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgevit.backend import Lowered, LowerOptions
from edgevit.bundle import Binding, Part
from edgevit.model import constant, dtype_of, shape_of
from edgevit.partition import Coverage, Fallback, partition
from edgevit.sim4f.program import Electronic, Optical, Program, Tensor
from edgevit.target import Target
from edgevit.targets.onnx.lower import OnnxBackend
from edgevit.targets.optical.artifact import Array, write
from edgevit.targets.optical.expand import expand
from edgevit.targets.optical.planner import choose
from edgevit.targets.optical.setting import Setting, setting
from edgevit.targets.optical.sites import layer_of

__all__ = ["ENGINE", "schedule"]

ENGINE = "optical"
LIGHT = "optical"


@dataclass
class _Made:
    """What is collected while parts are lowered."""

    steps: list[Optical | Electronic] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    parts: dict[str, bytes] = field(default_factory=dict)


def schedule(model: ir.Model, target: Target, options: LowerOptions) -> Lowered:
    """Lower a canonical model.

    Raises:
        UnsupportedModelError: A layer does not fit the device's planes.
    """
    chosen = setting(target)
    expanded = expand(model, chosen.plane)
    made = _Made()
    for number, piece in enumerate(partition(expanded, LIGHT, _electronic(expanded))):
        if piece.backend == LIGHT:
            for node in piece.model.graph:
                _light(node, chosen, made)
        else:
            _cut_out(piece.model, f"part{number}.onnx", target, made)
    root = f"{options.stem}.4f"
    program = Program(
        tuple(made.steps),
        tuple(_tensor(v) for v in model.graph.inputs),
        tuple(_tensor(v) for v in model.graph.outputs),
        made.shapes,
    )
    files = write(root, program, made.weights, made.parts)
    known = {str(out.name): out for node in model.graph for out in node.outputs}
    names = [name for name in _written(made.steps) if name in known]
    part = Part(
        engine=ENGINE,
        artifact=root,
        inputs=tuple(_binding(v) for v in model.graph.inputs),
        outputs=tuple(_binding(v) for v in model.graph.outputs),
    )
    return Lowered(files, part, tuple(_binding(known[name]) for name in names))


def _electronic(model: ir.Model) -> Coverage:
    """The nodes that light does not take, as partitioning wants to know them."""
    rest = tuple(
        Fallback(str(node.outputs[0].name), node.op_type, "electronics")
        for node in model.graph
        if layer_of(node) is None
    )
    return Coverage(len(model.graph), len(model.graph) - len(rest), rest)


def _light(node: ir.Node, chosen: Setting, made: _Made) -> None:
    layer = layer_of(node)
    assert layer is not None  # partitioning put it here
    made.shapes[layer.source] = layer.source_shape
    made.shapes[layer.kernel] = layer.kernel_shape
    if layer.static:
        made.weights[layer.kernel] = _stored(node.inputs[1])
    if layer.bias:
        made.weights[layer.bias] = _stored(node.inputs[2]).reshape(-1, 1, 1)
    made.steps.append(choose(layer, chosen.plane, chosen.signs, chosen.goal))


def _stored(value: ir.Value | None) -> Array:
    array = constant(value)
    assert array is not None
    return np.ascontiguousarray(array, np.float32)


def _cut_out(model: ir.Model, name: str, target: Target, made: _Made) -> None:
    whole = OnnxBackend().lower(model, target, LowerOptions("fp32", "source", "m"))
    made.parts[name] = whole.files[whole.part.artifact]
    ends = (
        tuple((b.artifact, b.name) for b in bindings)
        for bindings in (whole.part.inputs, whole.part.outputs)
    )
    made.steps.append(Electronic(name, *ends))


def _written(steps: list[Optical | Electronic]) -> Iterator[str]:
    for step in steps:
        if isinstance(step, Optical):
            yield step.name
        else:
            yield from (name for _, name in step.outputs)


def _tensor(value: ir.Value) -> Tensor:
    return Tensor(str(value.name), shape_of(value), str(dtype_of(value)))


def _binding(value: ir.Value) -> Binding:
    name, shape, dtype = str(value.name), shape_of(value), str(dtype_of(value))
    return Binding(name, name, dtype, shape, dtype, shape)
