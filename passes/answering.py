"""Layers whose results a network gives out, where their kernels may quantize as they run.

Codes of scores tie, and what takes the first of equal ones is not fair to the others:
PP-OCRv4's 6,625 scores of a position have one scale, .19 a step, and a tie of the blank, which
comes first, with a space ends as a blank. A kernel that quantizes the rows it reads as it runs
multiplies the same integers and writes floats.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgevit.layer_rules import writes_codes
from edgevit.model import shape_of
from edgevit.passes.facts import operand
from edgevit.passes.quantizable import MOVES, Quantizable, dequantized
from edgevit.target import QuantScheme

__all__ = ["answering"]

_PASSES_ON = MOVES | {"Softmax", "LogSoftmax", "Sigmoid"}


def answering(layers: Sequence[Quantizable], scheme: QuantScheme) -> tuple[str, ...]:
    """Keys of the layers that quantize what they read as they run.

    They are linear, read floats that no integer kernel writes, and only operators that pass
    scores on stand between their results and the network's outputs.

    Args:
        layers: All that are quantized.
        scheme: Of the device; without ``answers`` there are none.
    """
    if scheme.answers != "as-run" or not scheme.activations:
        return ()
    codes = {
        str(layer.result.name)
        for layer in layers
        if writes_codes(layer.node, shape_of(layer.weight), scheme)
    }
    return tuple(
        layer.key
        for layer in layers
        if layer.rank == 2  # no filters, no stack of products
        and not dequantized(layer.x)
        and _before_moves(layer.x) not in codes
        and _given_out(layer.result)
    )


def _before_moves(value: ir.Value) -> str:
    """The name of what operators that move elements were given."""
    node = value.producer()
    while node is not None and node.op_type in MOVES:
        value = operand(node, 0)
        node = value.producer()
    return str(value.name)


def _given_out(value: ir.Value) -> bool:
    """Whether a value ends in outputs of the network, whatever way it takes."""
    uses = value.uses()
    if not uses:
        return value.is_graph_output()
    return all(
        use.idx == 0
        and use.node.domain == ""
        and use.node.op_type in _PASSES_ON
        and all(_given_out(out) for out in use.node.outputs)
        for use in uses
    )
