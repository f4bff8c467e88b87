"""Convolutions and linear layers seen as one thing: a weight matrix with channels.

Quantization asks the same of both: which channels go in, which come out, what the weights of
a channel are, and how to put new ones in their place. None of these edits moves a node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.model import Names, constant, shape_of
from edgevit.passes.facts import Array, attr, given, operand, single_use, static

__all__ = [
    "ChannelLayer",
    "channel_layers",
    "layer_of",
    "renamed",
    "replace_bias",
    "replace_weight",
    "swap_constant",
]


@dataclass(frozen=True)
class ChannelLayer:
    """A ``Conv`` or a ``MatMul`` with a constant weight, and its bias.

    Attributes:
        node: The ``Conv`` or ``MatMul``.
        add: The ``Add`` that holds the bias of a ``MatMul``; ``None`` without one.
        weight: As stored: ``[C_out, C_in / group, kh, kw]`` or ``[K, N]``.
        bias: ``[C_out]`` or ``None``.
        group: Groups of the convolution, 1 for a ``MatMul``.
    """

    node: ir.Node
    add: ir.Node | None
    weight: Array
    bias: Array | None
    group: int

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution."""
        return self.node.op_type == "Conv"

    @property
    def x(self) -> ir.Value:
        """What it reads."""
        return operand(self.node, 0)

    @property
    def out(self) -> ir.Value:
        """What it computes, bias included."""
        return (self.add or self.node).outputs[0]

    @property
    def name(self) -> str:
        """Name of ``out``; identifies the layer in plans and reports."""
        return str(self.out.name)

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return int(self.weight.shape[1] * self.group if self.is_conv else self.weight.shape[0])

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return int(self.weight.shape[0 if self.is_conv else 1])

    @property
    def in_axis(self) -> int:
        """Axis of the input's channels."""
        return 1 if self.is_conv else len(shape_of(self.x)) - 1

    @property
    def depthwise(self) -> bool:
        """Whether every input channel has filters of its own."""
        return self.is_conv and self.group > 1 and self.weight.shape[1] == 1

    @property
    def padded(self) -> bool:
        """Whether the convolution reads zeros beyond the border."""
        return self.is_conv and any(attr(self.node, "pads", (0,)))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        positions = int(np.prod(shape_of(self.node.outputs[0]), dtype=np.int64))
        return positions * (self.weight.size // self.outputs)

    def matrix(self) -> Array:
        """Weights as ``[group, C_out / group, inputs of a filter]``."""
        if not self.is_conv:
            return np.ascontiguousarray(self.weight.T)[None]
        return self.weight.reshape(self.group, self.outputs // self.group, -1)

    def from_matrix(self, matrix: Array) -> Array:
        """The inverse of ``matrix``: back to the stored layout."""
        if not self.is_conv:
            return np.ascontiguousarray(matrix[0].T)
        return matrix.reshape(self.weight.shape)

    def input_peaks(self) -> Array:
        """Largest weight magnitude that reads each input channel, ``[C_in]``."""
        size = np.abs(self.weight)
        if not self.is_conv:
            return np.asarray(size.max(axis=1))
        parts = size.reshape(self.group, -1, *self.weight.shape[1:])
        return np.asarray(parts.max(axis=(1, 3, 4)).reshape(-1))

    def scale_inputs(self, factor: Array) -> Array:
        """The weight for inputs divided by ``factor`` ``[C_in]``, in float64."""
        wide = self.weight.astype(np.float64)
        if not self.is_conv:
            return np.asarray(wide * factor[:, None])
        parts = wide.reshape(self.group, -1, *self.weight.shape[1:])
        spread = factor.reshape(self.group, 1, -1, 1, 1)
        return np.asarray((parts * spread).reshape(self.weight.shape))

    def response(self, offset: Array) -> Array:
        """What a constant input ``offset`` ``[C_in]`` gives at the output, without bias.

        Exact for a convolution only where it reads no padding.
        """
        weight = self.weight.astype(np.float64)
        if not self.is_conv:
            return np.asarray(offset @ weight)
        taps = weight.sum(axis=(2, 3)).reshape(self.group, -1, self.weight.shape[1])
        parts = offset.reshape(self.group, -1, 1)
        return np.asarray((taps @ parts).reshape(-1))


def channel_layers(model: ir.Model) -> Iterator[ChannelLayer]:
    """All layers with constant float weights, in the order of the graph."""
    for node in model.graph:
        layer = layer_of(node)
        if layer is not None:
            yield layer


def layer_of(node: ir.Node) -> ChannelLayer | None:
    """The layer whose product a node is.

    ``None`` if it is none, or its weight is stored in integers already.
    """
    if node.domain or node.op_type not in ("Conv", "MatMul"):
        return None
    weight = constant(given(node, 1))
    if weight is None or weight.dtype.kind != "f":
        return None
    if node.op_type == "Conv":
        bias = constant(given(node, 2))
        return ChannelLayer(node, None, weight, bias, int(attr(node, "group", 1)))
    if weight.ndim != 2:
        return None
    add = _bias_node(node, weight.shape[1])
    bias = constant(operand(add, 1)) if add is not None else None
    return ChannelLayer(node, add, weight, bias, 1)


def _bias_node(node: ir.Node, width: int) -> ir.Node | None:
    out = node.outputs[0]
    if not single_use(out):
        return None
    user = next(iter(out.uses())).node
    if user.domain or user.op_type != "Add" or user.inputs[0] is not out:
        return None
    bias = constant(operand(user, 1))
    fits = bias is not None and bias.shape == (width,)
    return user if fits and static(user.outputs[0]) == static(out) else None


def replace_weight(
    graph: ir.Graph, layer: ChannelLayer, weight: Array, rule: str, names: Names
) -> None:
    """Give a layer another weight; the old one stays for others that read it."""
    value = _register(graph, weight.astype(layer.weight.dtype), layer, rule, names)
    _swap(graph, layer.node, 1, value)


def replace_bias(
    graph: ir.Graph, layer: ChannelLayer, bias: Array, rule: str, names: Names
) -> None:
    """Give a layer another bias, or its first one."""
    value = _register(graph, bias.astype(layer.weight.dtype), layer, rule, names)
    if layer.add is not None:
        _swap(graph, layer.add, 1, value)
        return
    if layer.is_conv:
        layer.node.resize_inputs(3)
        _swap(graph, layer.node, 2, value)
        return
    _append_bias(graph, layer.node, value, rule, names)


def _swap(graph: ir.Graph, node: ir.Node, index: int, new: ir.Value) -> None:
    old = node.inputs[index]
    node.replace_input_with(index, new)
    if old is not None and not old.uses() and not old.is_graph_output():
        graph.initializers.pop(str(old.name), None)


def swap_constant(
    graph: ir.Graph, node: ir.Node, index: int, array: Array, rule: str, names: Names
) -> None:
    """Put a new constant in the place of an input; drop the old one if nothing reads it."""
    name = names.fresh(f"{node.outputs[0].name}.{rule}.const")
    _swap(graph, node, index, _constant(graph, array, name))


def _append_bias(
    graph: ir.Graph, node: ir.Node, bias: ir.Value, rule: str, names: Names
) -> None:
    product = node.outputs[0]
    add = ir.Node("", "Add", [product, bias])
    add.metadata_props["edgevit.rule"] = rule
    out = add.outputs[0]
    out.shape, out.type = product.shape, product.type
    graph.insert_after(node, add)
    product.replace_all_uses_with(out, replace_graph_outputs=True)
    add.replace_input_with(0, product)
    # The sum is what the product was before: the name goes with the tensor.
    out.name, product.name = product.name, None
    product.name = names.fresh(f"{out.name}.{rule}.product")


def _register(
    graph: ir.Graph, array: Array, layer: ChannelLayer, rule: str, names: Names
) -> ir.Value:
    return _constant(graph, array, names.fresh(f"{layer.name}.{rule}.const"))


def _constant(graph: ir.Graph, array: Array, name: str) -> ir.Value:
    value = ir.val(
        name,
        ir.DataType.from_numpy(array.dtype),
        list(array.shape),
        const_value=ir.tensor(np.ascontiguousarray(array), name=name),
    )
    graph.register_initializer(value)
    return value


def renamed(value: ir.Value, rule: str, names: Names) -> None:
    """Rename a value whose content has changed: a source name is for the source's tensor."""
    value.name = names.fresh(f"{value.name}.{rule}")
