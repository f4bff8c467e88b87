"""Which layers an engine runs in integers: the rules of its device file, applied.

Kinds of layers, by what decides how engines compute them:

===============  ==========================================================================
``linear``       ``MatMul``
``pointwise``    ``Conv`` of one group, windows and strides of 1: a linear layer of channels
``patches``      ``Conv`` of one group whose windows do not overlap (patch embeddings)
``depthwise``    ``Conv`` of groups of one input channel
``grouped``      any other ``Conv`` of several groups
``spatial``      any other ``Conv``
``transposed``   ``ConvTranspose``
===============  ==========================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from edgevit.model import shape_of
from edgevit.target import LayerKind, LayerRule, QuantScheme

__all__ = ["float_reason", "intensity", "kind_of", "rule_of", "writes_codes"]


def kind_of(node: ir.Node, weight: Sequence[int]) -> LayerKind:
    """The kind of a layer.

    Args:
        node: ``Conv``, ``ConvTranspose`` or ``MatMul``.
        weight: Shape of its weight.
    """
    if node.op_type != "Conv":
        return "linear" if node.op_type == "MatMul" else "transposed"
    inputs, *windows = weight[1:]
    if node.attributes.get_int("group", 1) > 1:
        return "depthwise" if inputs == 1 else "grouped"
    if any(node.attributes.get_ints("pads", ())):
        return "spatial"
    strides = list(node.attributes.get_ints("strides", [1] * len(windows)))
    if strides != windows or set(node.attributes.get_ints("dilations", ())) - {1}:
        return "spatial"
    return "pointwise" if set(windows) == {1} else "patches"


def intensity(node: ir.Node, weight: Sequence[int]) -> float:
    """Multiplications for each number of a position that is read or written.

    ``K N / (K + N)`` with ``K`` numbers of the input that a result needs and ``N`` results.
    Converting to codes and back costs time for the numbers, integers save it for the
    multiplications.
    """
    results = _results(node)
    inputs = math.prod(weight) // results
    return inputs * results / (inputs + results)


def rows(node: ir.Node) -> int:
    """Positions that the layer is applied to: tokens, or pixels of the result."""
    return math.prod(shape_of(node.outputs[0])) // max(_results(node), 1)


def _results(node: ir.Node) -> int:
    """Output channels."""
    return shape_of(node.outputs[0])[-1 if node.op_type == "MatMul" else 1]


def rule_of(node: ir.Node, weight: Sequence[int], scheme: QuantScheme) -> LayerRule | None:
    """The first rule that matches."""
    return next((rule for rule in scheme.layers if _matches(rule, node, weight)), None)


def _matches(rule: LayerRule, node: ir.Node, weight: Sequence[int]) -> bool:
    if rule.kinds and kind_of(node, weight) not in rule.kinds:
        return False
    if rule.intensity_below and intensity(node, weight) >= rule.intensity_below:
        return False
    if rule.inputs_below and (node.op_type != "Conv" or weight[1] >= rule.inputs_below):
        return False
    return rows(node) >= rule.rows_from


def float_reason(node: ir.Node, weight: Sequence[int], scheme: QuantScheme) -> str | None:
    """Why a layer stays float on this engine; ``None`` if it does not."""
    if node.op_type not in scheme.operators:
        return f"{node.op_type} is not quantized here: {scheme.source}"
    rule = rule_of(node, weight, scheme)
    if rule is not None:
        why = f"int8 is {rule.because} on this engine: {rule.name} ({rule.source})"
        return f"left float: {why}" if rule.run == "float" else None
    if node.attributes.get_int("group", 1) > 1 and not scheme.depthwise:
        return f"a convolution of several groups: {scheme.source}"
    return None


def writes_codes(node: ir.Node, weight: Sequence[int], scheme: QuantScheme) -> bool:
    """Whether the layer's result is quantized too."""
    rule = rule_of(node, weight, scheme)
    if rule is not None and rule.run == "codes":
        return True
    return node.op_type in scheme.outputs
