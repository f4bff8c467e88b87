"""From canonical nodes to layers: which nodes light can compute, and how they are laid out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.sim4f.moves import reshape, transpose
from edgevit.targets.optical.layer import Layer, Window

__all__ = [
    "BIAS",
    "PRODUCT",
    "PRODUCT_DOMAIN",
    "attention_layers",
    "attention_refusal",
    "layer_of",
]

BIAS = ".bias"
# A product of two computed tensors, the second one's last two axes transposed if asked for:
# what attention is expanded into while it is lowered. Never written to a file.
PRODUCT, PRODUCT_DOMAIN = "Product", "ai.edgevit.optical"


def layer_of(node: ir.Node) -> Layer | None:
    """The layer of a node; ``None`` if electronics computes it."""
    if node.domain == PRODUCT_DOMAIN:
        return _product(node)
    known = _LAYERS.get((node.domain if node.domain != "ai.onnx" else "", node.op_type))
    if known is None or dtype_of(node.outputs[0]) != np.float32:
        return None
    return known(node)


def _name(value: ir.Value | None) -> str:
    return "" if value is None else str(value.name)


def _matmul(node: ir.Node) -> Layer | None:
    a, b = node.inputs
    assert a is not None
    assert b is not None
    if constant(a) is not None or len(shape_of(a)) < 2 or len(shape_of(b)) < 2:
        return None
    stored = constant(b) is not None
    if len(shape_of(b)) == 2 and (stored or len(shape_of(a)) > 2):
        return replace(_linear(node, a, b), static=stored)
    return _batched(node, a, b, transposed=False)


def _linear(node: ir.Node, a: ir.Value, b: ir.Value) -> Layer:
    """``x [..., d] W [d, m]``: tokens are a column, features are channels."""
    shape, (d, m) = shape_of(a), shape_of(b)
    tokens = math.prod(shape[:-1])
    return Layer(
        name=_name(node.outputs[0]),
        source=_name(a),
        source_shape=shape,
        kernel=_name(b),
        kernel_shape=(d, m),
        static=True,
        batch=1,
        groups=1,
        inputs=d,
        outputs=m,
        rows=Window(tokens),
        columns=Window(1),
        show=(reshape(1, 1, tokens, 1, d), transpose(0, 1, 4, 2, 3)),
        mask=(reshape(1, d, m, 1, 1), transpose(0, 2, 1, 3, 4)),
        collect=(transpose(0, 1, 3, 4, 2), reshape(*shape_of(node.outputs[0]))),
    )


def _product(node: ir.Node) -> Layer | None:
    a, b = node.inputs
    assert a is not None
    assert b is not None
    return _batched(node, a, b, transposed=bool(node.attributes["transposed"].as_int()))


def _batched(node: ir.Node, a: ir.Value, b: ir.Value, transposed: bool) -> Layer | None:
    shape, other = shape_of(a), shape_of(b)
    if shape[:-2] != other[:-2]:
        return None
    out = node.outputs[0]
    layer = _matrices(
        _name(out), (_name(a), shape), (_name(b), other), shape_of(out), transposed
    )
    return replace(layer, static=constant(b) is not None)


Named = tuple[str, tuple[int, ...]]


def _matrices(name: str, a: Named, b: Named, out: tuple[int, ...], transposed: bool) -> Layer:
    """Products of matrices, one for each leading index: a group each."""
    s, d = a[1][-2:]
    m, g = out[-1], math.prod(out[:-2])
    turned = (reshape(g, m, d, 1, 1),)
    plain = (reshape(g, d, m, 1, 1), transpose(0, 2, 1, 3, 4))
    return Layer(
        name=name,
        source=a[0],
        source_shape=a[1],
        kernel=b[0],
        kernel_shape=b[1],
        static=False,
        batch=1,
        groups=g,
        inputs=d,
        outputs=m,
        rows=Window(s),
        columns=Window(1),
        show=(reshape(1, g, s, 1, d), transpose(0, 1, 4, 2, 3)),
        mask=turned if transposed else plain,
        collect=(transpose(0, 1, 3, 4, 2), reshape(*out)),
    )


def _conv(node: ir.Node) -> Layer | None:
    x, w = node.inputs[0], node.inputs[1]
    assert x is not None
    assert w is not None
    if constant(w) is None or len(shape_of(x)) != 4 or constant(x) is not None:
        return None
    strides, pads, dilations = (_ints(node, k) for k in ("strides", "pads", "dilations"))
    return _convolution(node, shape_of(x), strides, pads, dilations)


def _shared(node: ir.Node) -> Layer | None:
    """``SharedConv``: the pictures of tokens are the batch."""
    if constant(node.inputs[0]) is not None or constant(node.inputs[1]) is None:
        return None
    return _convolution(node, _ints(node, "tile"), (1, 1), _ints(node, "pads"), (1, 1))


def _ints(node: ir.Node, key: str) -> list[int]:
    return [int(v) for v in node.attributes[key].as_ints()]


def _convolution(
    node: ir.Node,
    pictures: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> Layer:
    """A convolution of ``pictures`` ``[n, c, h, w]``."""
    x, w = node.inputs[0], node.inputs[1]
    assert x is not None
    assert w is not None
    n, c, h, width = pictures
    o, i, ky, kx = shape_of(w)
    g = c // i
    out = shape_of(node.outputs[0])
    windows = [
        Window(size, taps, stride, dilation, before, outs)
        for size, taps, stride, dilation, before, outs in zip(
            (h, width), (ky, kx), strides, dilations, pads[:2], out[2:], strict=True
        )
    ]
    biased = len(node.inputs) > 2 and node.inputs[2] is not None
    return Layer(
        name=_name(node.outputs[0]),
        source=_name(x),
        source_shape=shape_of(x),
        kernel=_name(w),
        kernel_shape=shape_of(w),
        static=True,
        batch=n,
        groups=g,
        inputs=i,
        outputs=o // g,
        rows=windows[0],
        columns=windows[1],
        show=(reshape(n, g, i, h, width),),
        mask=(reshape(g, o // g, i, ky, kx),),
        collect=(reshape(*out),),
        bias=_name(node.outputs[0]) + BIAS if biased else "",
    )


# Attributes that change the function beyond the canonical attention.
_EXTRAS = ("is_causal", "softcap", "q_num_heads", "kv_num_heads", "qk_matmul_output_mode")


def attention_refusal(node: ir.Node) -> str | None:
    """Why an attention cannot be written as two products and a softmax; ``None`` if it can."""
    for name in (*_EXTRAS, "softmax_precision"):
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.value:
            return f"attribute {name} is not canonical (docs/canonical.md)"
    operands = [v for v in node.inputs if v is not None]
    if len(node.inputs) > 4 or len(node.outputs) > 1:
        return "past or present keys and values are not canonical (docs/canonical.md)"
    kinds = sorted({str(dtype_of(v)) for v in operands})
    if kinds != ["float32"]:
        return f"expected operands and mask in float32, found {', '.join(kinds)}"
    shapes = [shape_of(v) for v in operands[:3]]
    if any(len(shape) != 4 for shape in shapes):
        return f"expected operands of rank 4, found {', '.join(map(str, shapes))}"
    heads = [shape[:2] for shape in shapes]
    if len(set(heads)) > 1:
        found = ", ".join(str(shape[1]) for shape in shapes)
        return f"expected as many heads of queries as of keys and values, found {found}"
    return None


def attention_layers(shapes: Sequence[tuple[int, ...]]) -> tuple[Layer, Layer]:
    """The two products of an attention with queries, keys and values of these shapes."""
    (b, h, s, _), (_, _, t, _), (_, _, _, e) = shapes
    scores = _matrices("scores", ("q", shapes[0]), ("k", shapes[1]), (b, h, s, t), True)
    out = _matrices("out", ("p", (b, h, s, t)), ("v", shapes[2]), (b, h, s, e), False)
    return scores, out


_LAYERS = {
    ("", "MatMul"): _matmul,
    ("", "Conv"): _conv,
    # Functions whose bodies are the same operators.
    ("ai.edgevit", "OpticalLinear"): _matmul,
    ("ai.edgevit", "OpticalConv"): _conv,
    ("ai.edgevit", "SharedConv"): _shared,
}
