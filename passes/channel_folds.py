"""An affine change of an activation's channels, undone where the activation is read.

``x' = (x - b) / r`` per channel goes into what makes ``x`` (the affine part of a layer norm,
or a convolution or linear layer), and its inverse into the layers that read ``x``:
``W x + c = (W r) x' + (W b + c)``. The function stays what it is; what changes is how well
one quantization scale fits all channels. Shared by ``fold-norm-scales``, ``smooth-quant`` and
``equalize``, which differ only in how they choose ``r`` and ``b``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.edits import FoldChannels
from edgevit.model import Names, constant, shape_of
from edgevit.passes.channel_layers import (
    ChannelLayer,
    layer_of,
    renamed,
    replace_bias,
    replace_weight,
    swap_constant,
)
from edgevit.passes.facts import Array, attr, given, operand, static
from edgevit.rewrite import RULE_KEY, Refused

__all__ = ["FoldSite", "apply_fold", "find_site"]

_NORMS = frozenset({"LayerNormalization", "GroupNormalization", "InstanceNormalization"})
# f(r x) = r f(x) for r > 0; a pooling takes channels one by one.
_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "MaxPool", "AveragePool"})


@dataclass(frozen=True)
class FoldSite:
    """Where a change of channels enters and where it is undone.

    Attributes:
        value: The activation, as the readers take it.
        axis: Axis of its channels.
        norm: The ``LayerNormalization`` that makes it, or ``None``.
        layer: The convolution or linear layer that makes it, or ``None``.
        path: Every value that changes, the activation among them.
        readers: The layers that read it; all of them, unless the change is explicit.
        shifts: Whether an offset is possible: no function that bends or pads is passed.
    """

    value: ir.Value
    axis: int
    norm: ir.Node | None
    layer: ChannelLayer | None
    path: tuple[ir.Value, ...]
    readers: tuple[ChannelLayer, ...]
    shifts: bool

    @property
    def channels(self) -> int:
        """Number of channels."""
        return shape_of(self.value)[self.axis]


def find_site(reader: ChannelLayer, explicit: bool = False) -> FoldSite | Refused:
    """The site at the input of a layer.

    1. Upward, through layout changes and functions with ``f(r x) = r f(x)``, there is a layer
       normalization over these channels or a layer with constant weights.
    2. Everything that reads the values in between leads, through the same, to layers.
    3. An offset needs a way without such functions, and readers without padding.
    4. With ``explicit``, where 1 or 2 fail, only this activation changes, by operators of its
       own, for all layers that read it directly.

    Args:
        reader: A layer that reads the activation.
        explicit: Whether case 4 is allowed.
    """
    source = _source(reader.x, reader.in_axis)
    if not isinstance(source, Refused):
        top, axis, _ = source
        found = _below(top, axis)
        if not isinstance(found, Refused):
            return _implicit(source, found, reader)
        source = found
    return _explicit(reader) if explicit else source


_Source = tuple[ir.Value, int, bool]
_Below = tuple[tuple[ir.Value, ...], tuple[ChannelLayer, ...], bool]


def _implicit(source: _Source, found: _Below, reader: ChannelLayer) -> FoldSite:
    top, _, shifts = source
    path, readers, below_shifts = found
    producer = top.producer()
    norm = producer if producer is not None and _is_norm(producer) else None
    layer = None if norm is not None or producer is None else _layer_at(producer)
    plain = shifts and below_shifts and not any(r.padded for r in readers)
    return FoldSite(reader.x, reader.in_axis, norm, layer, path, readers, plain)


def _explicit(reader: ChannelLayer) -> FoldSite | Refused:
    value, axis = reader.x, reader.in_axis
    if value.is_graph_input():
        return Refused("the graph's input keeps its values")
    users = [layer_of(use.node) for use in value.uses()]
    readers = tuple(u for u in users if u is not None and u.in_axis == axis)
    plain = not any(r.padded for r in readers)
    return FoldSite(value, axis, None, None, (), readers, plain)


def _source(value: ir.Value, axis: int) -> _Source | Refused:
    """Walk up to the value that a norm or a layer makes; whether an offset gets there."""
    shifts = True
    while True:
        node = value.producer()
        if node is None:
            return Refused("nothing in front of the graph's input can take the scales")
        if (_is_norm(node) or _layer_at(node) is not None) and axis == _out_axis(node):
            return value, axis, shifts
        step = _up(node, axis)
        if step is None:
            return Refused(f"a {node.op_type} in front does not pass scales on")
        shifts &= node.op_type not in _HOMOGENEOUS
        value, axis = operand(node, 0), step


def _out_axis(node: ir.Node) -> int:
    last = node.op_type in ("LayerNormalization", "MatMul", "Add")
    return len(shape_of(node.outputs[0])) - 1 if last else 1


def _is_norm(node: ir.Node) -> bool:
    """Whether a node normalizes and then scales and shifts every channel by constants."""
    if node.domain or node.op_type not in _NORMS:
        return False
    return all(constant(given(node, index)) is not None for index in (1, 2))


def _layer_at(node: ir.Node) -> ChannelLayer | None:
    """The layer whose result (bias included) a node gives."""
    if node.op_type == "Add":
        inner = operand(node, 0).producer()
        layer = None if inner is None else layer_of(inner)
        return layer if layer is not None and layer.add is node else None
    layer = layer_of(node)
    return layer if layer is not None and layer.add is None else None


def _up(node: ir.Node, axis: int) -> int | None:
    """The axis of the channels in front of a node that passes them on one by one."""
    if node.domain:
        return None
    if node.op_type in _HOMOGENEOUS:
        return axis if axis == 1 or "Pool" not in node.op_type else None
    if node.op_type == "Transpose":
        return int(attr(node, "perm")[axis])
    if node.op_type == "Reshape":
        return _kept(static(node.outputs[0]), static(operand(node, 0)), axis)
    return None


def _down(node: ir.Node, axis: int) -> int | None:
    if node.domain:
        return None
    if node.op_type in _HOMOGENEOUS:
        return axis if axis == 1 or "Pool" not in node.op_type else None
    if node.op_type == "Transpose":
        return list(attr(node, "perm")).index(axis)
    if node.op_type == "Reshape":
        return _kept(static(operand(node, 0)), static(node.outputs[0]), axis)
    return None


def _kept(old: tuple[int, ...] | None, new: tuple[int, ...] | None, axis: int) -> int | None:
    """Where an axis is after a reshape that leaves it whole."""
    if old is None or new is None:
        return None
    before = int(np.prod(old[:axis]))
    for index, size in enumerate(new):
        if size == old[axis] and int(np.prod(new[:index])) == before:
            return index
    return None


def _below(top: ir.Value, axis: int) -> _Below | Refused:
    """Everything that reads a value, through what passes scales on (case 2)."""
    path: list[ir.Value] = []
    readers: list[ChannelLayer] = []
    shifts, todo = True, [(top, axis)]
    while todo:
        value, axis = todo.pop()
        if value.is_graph_output():
            return Refused(f"{value.name!r} is an output of the graph")
        path.append(value)
        for use in value.uses():
            layer = layer_of(use.node)
            if layer is not None and use.idx == 0 and layer.in_axis == axis:
                readers.append(layer)
                continue
            step = _down(use.node, axis)
            if step is None:
                return Refused(f"{value.name!r} is also read by {use.node.op_type}")
            shifts &= use.node.op_type not in _HOMOGENEOUS
            todo.append((use.node.outputs[0], step))
    return tuple(path), tuple(readers), shifts


def apply_fold(graph: ir.Graph, site: FoldSite, fold: FoldChannels, rule: str) -> None:
    """Change a site's channels in place. Sums are computed in float64 and rounded once.

    Raises:
        ValueError: Scales that are not positive and finite, a wrong number of channels, or an
            offset where the site takes none (a bug of the pass that made the plan).
    """
    scale = np.asarray(fold.scale, np.float64)
    offset = np.asarray(fold.offset, np.float64)
    _check(site, scale, offset)
    names = Names(graph)
    for value in site.path:  # before the edits: a first bias takes the name over
        renamed(value, rule, names)
    if site.norm is not None:
        _fold_norm(graph, site.norm, scale, offset, rule, names)
    elif site.layer is not None:
        _fold_layer(graph, site.layer, scale, offset, rule, names)
    else:
        _insert(graph, site, scale, offset, rule, names)
    for reader in site.readers:
        _undo(graph, reader, scale, offset, rule, names)


def _check(site: FoldSite, scale: Array, offset: Array) -> None:
    if scale.shape != (site.channels,) or offset.shape != (site.channels,):
        raise ValueError(f"{site.value.name!r} has {site.channels} channels: {scale.shape}")
    if not (np.isfinite(scale).all() and (scale > 0).all() and np.isfinite(offset).all()):
        raise ValueError(f"scales of {site.value.name!r} are not all positive and finite")
    if offset.any() and not site.shifts:
        raise ValueError(f"{site.value.name!r} cannot take an offset")


def _fold_norm(
    graph: ir.Graph, norm: ir.Node, scale: Array, offset: Array, rule: str, names: Names
) -> None:
    gamma, beta = constant(norm.inputs[1]), constant(norm.inputs[2])
    if gamma is None or beta is None:
        raise ValueError(f"{norm.outputs[0].name!r} has no constant scale and offset")
    wide = (beta.astype(np.float64) - offset) / scale
    swap_constant(graph, norm, 1, (gamma / scale).astype(gamma.dtype), rule, names)
    swap_constant(graph, norm, 2, wide.astype(beta.dtype), rule, names)


def _fold_layer(
    graph: ir.Graph, layer: ChannelLayer, scale: Array, offset: Array, rule: str, names: Names
) -> None:
    layer = _current(layer)
    wide = layer.weight.astype(np.float64)
    spread = scale.reshape(-1, 1, 1, 1) if layer.is_conv else scale
    replace_weight(graph, layer, wide / spread, rule, names)
    if layer.add is not None:
        renamed(layer.node.outputs[0], rule, names)
    if layer.bias is None and not offset.any():
        return
    bias = 0.0 if layer.bias is None else layer.bias.astype(np.float64)
    replace_bias(graph, layer, np.asarray((bias - offset) / scale), rule, names)


def _undo(
    graph: ir.Graph, layer: ChannelLayer, scale: Array, offset: Array, rule: str, names: Names
) -> None:
    current = _current(layer)
    replace_weight(graph, current, current.scale_inputs(scale), rule, names)
    if not offset.any():
        return
    if current.add is not None:
        renamed(current.node.outputs[0], rule, names)
    bias = 0.0 if current.bias is None else current.bias.astype(np.float64)
    replace_bias(graph, current, bias + current.response(offset), rule, names)


def _current(layer: ChannelLayer) -> ChannelLayer:
    """The layer as it is now: another site's change may have given it other weights."""
    found = layer_of(layer.node)
    if found is None:
        raise ValueError(f"{layer.name!r} is no layer any more")
    return found


def _insert(
    graph: ir.Graph, site: FoldSite, scale: Array, offset: Array, rule: str, names: Names
) -> None:
    """``Mul`` by the reciprocal scale, then ``Add``: two constants and no division."""
    rank = len(shape_of(site.value))
    shape = [1] * rank
    shape[site.axis] = site.channels
    dtype = site.readers[0].weight.dtype
    steps = [("Mul", 1.0 / scale)]
    if offset.any():
        steps.append(("Add", -offset / scale))
    at = site.value
    anchor = at.producer()
    if anchor is None:
        raise ValueError("an explicit change needs an operator in front")
    for op_type, array in steps:
        at, anchor = _step(
            graph, anchor, op_type, at, array.reshape(shape).astype(dtype), rule
        )
        at.name = names.fresh(f"{site.value.name}.{rule}")
    for reader in site.readers:
        reader.node.replace_input_with(0, at)


def _step(
    graph: ir.Graph, anchor: ir.Node, op_type: str, x: ir.Value, array: Array, rule: str
) -> tuple[ir.Value, ir.Node]:
    name = Names(graph).fresh(f"{x.name}.{rule}.const")
    number = ir.val(
        name,
        ir.DataType.from_numpy(array.dtype),
        list(array.shape),
        const_value=ir.tensor(np.ascontiguousarray(array), name=name),
    )
    graph.register_initializer(number)
    node = ir.Node("", op_type, [x, number])
    node.metadata_props[RULE_KEY] = rule
    graph.insert_after(anchor, node)
    out = node.outputs[0]
    out.shape, out.type = x.shape, x.type
    return out, node
