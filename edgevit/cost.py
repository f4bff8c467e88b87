"""What a canonical graph costs: multiply-accumulates, parameters, bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from edgevit.model import shape_of
from edgevit.shift_codes import FUNCTIONS

__all__ = ["Cost", "node_cost", "node_costs", "peak_activation_bytes", "total_cost"]

# Integer constants that are weights; others are indices, axes and shapes.
_INTEGER_WEIGHTS = frozenset({"ConvInteger", "DequantizeLinear", "MatMulInteger"}) | FUNCTIONS


@dataclass(frozen=True)
class Cost:
    """A sum over nodes.

    Attributes:
        macs: Multiply-accumulates of convolutions, matrix products and attention; the
            element-wise work beside them is counted in ``elements``.
        params: Elements of weight constants.
        weight_bytes: Their size in bytes.
        elements: Output elements of all other operators that compute.
        moved_bytes: Activations read and written, in bytes.
    """

    macs: int = 0
    params: int = 0
    weight_bytes: int = 0
    elements: int = 0
    moved_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.macs + other.macs,
            self.params + other.params,
            self.weight_bytes + other.weight_bytes,
            self.elements + other.elements,
            self.moved_bytes + other.moved_bytes,
        )


# Operators that only rename or move data.
_MOVES = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Gather",
        "GatherElements",
        "GatherND",
        "Pad",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Tile",
        "Transpose",
    }
)


def node_cost(node: ir.Node) -> Cost:
    """Cost of one node of a canonical graph.

    Raises:
        ValueError: A shape is not static.
    """
    weights = _weights(node)
    activations = [v for v in node.inputs if v is not None and v.const_value is None]
    macs = _macs(node)
    counts = not macs and node.op_type not in _MOVES
    outputs = [v for v in node.outputs if v.name]
    return Cost(
        macs=macs,
        params=_params(node, weights),
        weight_bytes=sum(_nbytes(v) for v in weights),
        elements=sum(_size(v) for v in outputs) if counts else 0,
        moved_bytes=sum(_nbytes(v) for v in (*activations, *outputs)),
    )


def node_costs(model: ir.Model) -> tuple[Cost, ...]:
    """Cost of each node; a constant that several nodes share counts at the first.

    Raises:
        ValueError: A shape is not static.
    """
    found = []
    seen: set[ir.Value] = set()
    for node in model.graph:
        weights = _weights(node)
        again = [v for v in weights if v in seen]
        shared = Cost(
            params=-sum(_size(v) for v in again), weight_bytes=-sum(_nbytes(v) for v in again)
        )
        found.append(node_cost(node) + shared)
        seen.update(weights)
    return tuple(found)


def total_cost(model: ir.Model) -> Cost:
    """Cost of the whole graph; a constant that several nodes share counts once.

    Raises:
        ValueError: A shape is not static.
    """
    return sum(node_costs(model), Cost())


def peak_activation_bytes(model: ir.Model) -> int:
    """Most bytes of activations alive at once, nodes run in the order of the graph.

    A node's inputs and outputs are alive together (no buffer is written in place); graph
    inputs live until their last use, graph outputs to the end.

    Raises:
        ValueError: A shape is not static.
    """
    left = {v: len(v.uses()) for v in model.graph.inputs}
    alive = sum(_nbytes(v) for v in left)
    peak = alive
    for node in model.graph:
        outputs = [out for out in node.outputs if out.name]  # an empty name: not computed
        for out in outputs:
            left[out] = len(out.uses())
            alive += _nbytes(out)
        peak = max(peak, alive)
        done = {v for v in (*_consumed(node, left), *outputs) if not left[v]}
        alive -= sum(_nbytes(v) for v in done if not v.is_graph_output())
    return peak


def _consumed(node: ir.Node, left: dict[ir.Value, int]) -> list[ir.Value]:
    read = [v for v in node.inputs if v is not None and v in left]
    for value in read:
        left[value] -= 1
    return read


def _weights(node: ir.Node) -> list[ir.Value]:
    """Constant inputs with at least one axis that hold numbers, not indices or sizes."""
    found: dict[ir.Value, None] = {}
    for value in node.inputs:
        tensor = None if value is None else value.const_value
        if value is None or tensor is None or not len(tensor.shape):
            continue
        if tensor.dtype.is_floating_point() or node.op_type in _INTEGER_WEIGHTS:
            found[value] = None
    return list(found)


def _params(node: ir.Node, weights: list[ir.Value]) -> int:
    """Elements; of packed codes the weights that they mean."""
    packed = set(node.inputs[1 : 2 + node.op_type.startswith("Wide")])
    if node.op_type not in FUNCTIONS:
        packed = set()
    plain = sum(_size(v) for v in weights if v not in packed)
    return plain + (_shift_depth(node) * _shape(node, 1)[-1] if packed else 0)


def _shift_depth(node: ir.Node) -> int:
    """Products of one result of a layer of shifts."""
    return node.attributes["inputs"].as_int()


def _size(value: ir.Value) -> int:
    return math.prod(shape_of(value))


def _nbytes(value: ir.Value) -> int:
    if value.dtype is None:
        raise ValueError(f"value {value.name!r} has no dtype")
    return -(-_size(value) * value.dtype.bitwidth // 8)


def _macs(node: ir.Node) -> int:
    op = node.op_type
    if op in ("MatMul", "Gemm", "MatMulInteger"):
        return _product_macs(node)
    if op in ("Conv", "ConvInteger"):
        return _size(node.outputs[0]) * math.prod(_shape(node, 1)[1:])
    if op == "ConvTranspose":
        return math.prod(_shape(node, 0)) * math.prod(_shape(node, 1)[1:])
    if op.startswith("MixtureOfPrimitives"):  # each token goes through one expert
        layers = (2,) if op == "MixtureOfPrimitives" else (2, 4)
        tokens = math.prod(_shape(node, 0)[:-1])
        return tokens * sum(math.prod(_shape(node, i)) for i in layers)
    if op in FUNCTIONS:
        return _size(node.outputs[0]) * _shift_depth(node)
    if op == "Attention":
        return _attention_macs(node)
    return 0


def _attention_macs(node: ir.Node) -> int:
    """Scores and weighted values; of rank 3 or 4, heads grouped or not, with a past or not."""
    query, key, value = (_shape(node, i) for i in range(3))
    past = _shape(node, 4)[-2] if len(node.inputs) > 4 and node.inputs[4] is not None else 0
    columns = key[-2] + past
    if len(query) == 4:
        batch, heads, rows, depth = query
        return batch * heads * rows * columns * (depth + value[-1])
    batch, rows, depths = query
    queries, keys = (node.attributes.get_int(f"{n}_num_heads", 1) or 1 for n in ("q", "kv"))
    return batch * rows * columns * (depths + value[-1] // keys * queries)


def _product_macs(node: ir.Node) -> int:
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transA") == 1
    inner = _shape(node, 0)[0 if transposed else -1]
    return _size(node.outputs[0]) * inner


def _shape(node: ir.Node, index: int) -> tuple[int, ...]:
    value = node.inputs[index]
    if value is None:
        raise ValueError(f"node {node.name!r} lacks input {index}")
    return shape_of(value)
