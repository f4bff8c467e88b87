"""Layers whose results a network gives out, where their kernels may quantize as they run.

Codes of scores tie, and what takes the first of equal ones is not fair to the others:
PP-OCRv4's 6,625 scores of a position have one scale, .19 a step, and a tie of the blank, which
comes first, with a space ends as a blank. A kernel that quantizes the rows it reads as it runs
multiplies the same integers and writes floats.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import onnx_ir as ir

from edgevit.layer_rules import writes_codes
from edgevit.model import shape_of
from edgevit.passes.quantizable import MOVES, Quantizable, dequantized
from edgevit.quantizers import quantized_as_run
from edgevit.target import QuantScheme

__all__ = ["answering"]

_PASSES_ON = MOVES | {"ArgMax", "LogSoftmax", "Sigmoid", "Softmax"}
# Through these codes may come too, once their quantizers are moved down.
_CARRIES = MOVES | {"Concat", "Gather", "MaxPool", "Pad"}


def answering(layers: Sequence[Quantizable], scheme: QuantScheme) -> tuple[str, ...]:
    """Keys of the layers that quantize what they read as they run.

    They are linear, read floats that no integer kernel writes, and only operators that pass
    scores on, or choose among them, stand between their results and the network's outputs.
    Those kernels have codes of 8 bits.

    Args:
        layers: All that are quantized.
        scheme: Of the device; without ``answers`` there are none.
    """
    if scheme.answers != "as-run" or scheme.activations not in ("int8", "uint8"):
        return ()
    if scheme.activation_bits not in (0, 8):
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
        and not quantized_as_run(layer.node)
        and not dequantized(layer.x)
        and not _carried(layer.x, codes)
        and _given_out(layer.result)
    )


def _carried(value: ir.Value, codes: Set[str]) -> bool:
    """Whether a value is what one of the named ones was, moved, gathered or joined."""
    if str(value.name) in codes:
        return True
    node = value.producer()
    return (
        node is not None
        and node.op_type in _CARRIES
        and any(v is not None and _carried(v, codes) for v in node.inputs)
    )


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
